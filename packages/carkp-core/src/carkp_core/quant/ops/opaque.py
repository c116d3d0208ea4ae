"""A call without integer form: computed in float, so that the rest of a network can still be judged."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from carkp_core.ir import operators as ir
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import TensorType
from carkp_core.quant import exact
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, float_input


class Opaque(Layer):
    """The original torch call, between dequantization and quantization of its result.

    ``args`` hold ``Slot``s where the layer's inputs go; ``pick`` takes one of several results.
    """

    kind: ClassVar[str] = "opaque"
    integer: ClassVar[bool] = False

    def __init__(
        self,
        target: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        pick: int | None = None,
    ) -> None:
        super().__init__()
        self.target, self.function, self.pick = target, function, pick
        self.args, self.kwargs = tuple(args), dict(kwargs)
        #: As traced, with N = 1; a tensor whose first dimension is not the batch gets one in front.
        self.shape: tuple[int, ...] = ()
        #: As traced: indices and masks are passed on as such to the calls that take them.
        self.result_dtype = torch.float32

    def float_forward(self, *inputs: Tensor) -> Tensor:
        def filled(value: Any) -> Any:
            return inputs[value.index].to(value.dtype) if isinstance(value, Slot) else value

        args, kwargs = tree_map(filled, (self.args, self.kwargs))
        with torch.no_grad():
            result = self.function(*args, **kwargs)
        result = result if self.pick is None else result[self.pick]
        return result.float()  # type: ignore[no-any-return]

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        scale = self.wanted_scale()
        result = self.float_forward(*(float_input(x) for x in inputs))
        return QTensor(exact.quantize(result, scale, *INT_RANGE[self.dtype]), scale, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        return IrOp(ir.Opaque(self.target, self.shape), self.dtype, self.wanted_scale())


class Slot:
    """The place of a layer's input among an opaque call's arguments, and the type that the call takes."""

    def __init__(self, index: int, dtype: torch.dtype) -> None:
        self.index, self.dtype = index, dtype


def call_name(function: Any) -> str:
    """A torch call's name for people: ``torch.nn.functional.softmax``, ``Tensor.sort``."""
    if isinstance(function, nn.Module):
        return f"{type(function).__module__}.{type(function).__qualname__}"
    name = getattr(function, "__name__", str(function))
    module = getattr(function, "__module__", None)
    if module in (None, "torch._tensor") or inspect.ismethoddescriptor(function):
        return f"Tensor.{name}"
    return f"{module}.{name}"


def make_opaque(function: Callable[..., Any], args: Any, kwargs: Any, pick: Any = None) -> tuple[Opaque, list[fx.Node]]:
    """The opaque layer of a call whose tensor arguments are nodes, and those nodes in the layer's order."""
    inputs: list[fx.Node] = []

    def slot(value: Any) -> Any:
        if not isinstance(value, fx.Node):
            return value
        if value not in inputs:
            inputs.append(value)
        return Slot(inputs.index(value), value.meta.get("dtype", torch.float32))

    slotted_args, slotted_kwargs = fx.node.map_aggregate(args, slot), fx.node.map_aggregate(kwargs, slot)
    return Opaque(call_name(function), function, slotted_args, slotted_kwargs, pick), inputs
