"""The base of quantized layers: one float meaning, one integer meaning, one IR operator.

A layer works in two ways. In float (also while observing) it maps float tensors to a float tensor. In integers it
maps ``QTensor``s to a ``QTensor`` with exactly the numbers that the IR operator from ``to_ir`` computes; gradients pass
straight through. A layer either has a scale of its own (``own_scale``: an observer stands at its output), or moves or
selects elements and keeps its first input's steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_core.errors import QuantizationError
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import Operation, Source, TensorType
from carkp_core.quant.exact import QTensor

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder

Shape = tuple[int, ...]


@frozen
class Bounds:
    """A clamp fused behind a layer, in float units: ReLU is (0, None), ReLU6 (0, 6)."""

    low: float | None = None
    high: float | None = None

    def limits(self, scale: float, dtype: str) -> tuple[int, int]:
        """The integer clamp: round half even of each bound, inside the type."""
        lowest, highest = INT_RANGE[dtype]
        lo = lowest if self.low is None else max(lowest, min(highest, round(self.low / scale)))
        hi = highest if self.high is None else min(highest, max(lowest, round(self.high / scale)))
        return lo, max(lo, hi)

    def apply(self, x: Tensor) -> Tensor:
        """The clamp on floats."""
        return x if self == Bounds() else x.clamp(self.low, self.high)

    def then(self, other: Bounds) -> Bounds:
        """This clamp followed by another."""
        return Bounds(*(edge if own is None else other.clip(own) for own, edge in zip(self, other, strict=True)))

    def clip(self, value: float) -> float:
        """One number, clamped."""
        value = value if self.low is None else max(value, self.low)
        return value if self.high is None else min(value, self.high)

    def __iter__(self) -> Iterator[float | None]:
        return iter((self.low, self.high))


@frozen(eq=False)
class IrOp:
    """What ``to_ir`` returns: an operator and the type of its output but for the shape."""

    op: Operation
    dtype: str
    scale: float


def origin_of(*tensors: Tensor | None) -> tuple[int, ...]:
    """The identity of parameters and buffers, which live as long as their network; none for computed tensors."""
    lasting = all(tensor is None or isinstance(tensor, nn.Parameter) for tensor in tensors)
    return tuple(map(id, tensors)) if lasting else ()


class Layer(nn.Module):
    """Base of quantized layers. ``scale`` is 0 until it is calibrated."""

    kind: ClassVar[str] = ""
    #: The output has a scale of its own; otherwise it keeps the steps of the first input.
    own_scale: ClassVar[bool] = True
    #: An activation that clamps may be fused behind this layer.
    takes_bounds: ClassVar[bool] = False
    #: The layer has integer arithmetic. ``Opaque`` has none.
    integer: ClassVar[bool] = True

    scale: Tensor
    #: Which tensors of the user's network the parameters were made from; layers with equal ones share them.
    origin: tuple[int, ...]

    def __init__(self) -> None:
        super().__init__()
        self.origin = ()
        self.bounds = Bounds()
        #: The upper clamp that a repair took off, to be put back by a state that has it.
        self.taken_high: float | None = None
        self.dtype = "int8"
        self.label = type(self).__name__
        self.source = Source()
        if self.own_scale:
            self.register_buffer("scale", torch.zeros((), dtype=torch.float32))
        self._constants: tuple[Any, Any] | None = None

    def float_forward(self, *inputs: Tensor) -> Tensor:
        """The layer on floats."""
        raise NotImplementedError(type(self).__name__)

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        """The layer on whole numbers, equal to its IR operator."""
        raise NotImplementedError(type(self).__name__)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        """The IR operator, for inputs of these types."""
        raise NotImplementedError(type(self).__name__)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        """Write the float layer and return its output's name. ``shapes`` are the inputs', ``shape`` the output's."""
        raise NotImplementedError(type(self).__name__)

    def has_onnx_form(self) -> bool:
        """True when ``to_onnx`` can write it."""
        return type(self).to_onnx is not Layer.to_onnx

    def bounded(self, builder: OnnxBuilder, output: str) -> str:
        """Write the fused clamp behind an output."""
        if self.bounds == Bounds():
            return output
        if self.bounds == Bounds(0.0, None):
            return builder.node("Relu", [output], f"{self.label}.relu")
        edges = [
            "" if edge is None else builder.constant(edge, f"{self.label}.{name}")
            for name, edge in zip(("low", "high"), self.bounds, strict=True)
        ]
        return builder.node("Clip", [output, *edges], f"{self.label}.clip")

    def notes(self) -> list[str]:
        """What a person should know of the last integer constants."""
        return []

    def learn_scale(self) -> None:
        """Make the output scale a parameter, under the same name."""
        if self.own_scale and "scale" in self._buffers:
            value = self._buffers.pop("scale")
            assert value is not None
            self.scale = nn.Parameter(value)

    def set_scale(self, scale: float) -> None:
        """Set the output scale."""
        with torch.no_grad():
            self.scale.fill_(scale)

    def wanted_scale(self) -> float:
        """The calibrated output scale.

        Raises
        ------
        QuantizationError
            When the layer was never calibrated.
        """
        scale = float(self.scale.detach())
        if not (math.isfinite(scale) and scale > 0.0):
            raise QuantizationError(
                "the layer has no scale",
                where=str(self.source) or self.label,
                seen=repr(scale),
                remedy="train with a lower learning rate; a loop of your own needs quant.learned_scale.ScaleGuard"
                if scale < 0.0
                else "calibrate first: carkp train --stage calibration",
            )
        return scale

    def cached(self, key: tuple[Any, ...], make: Any) -> Any:
        """``make()``, remembered until a tensor of the layer or the key changes."""
        state = tuple((id(t), t._version) for t in (*self.parameters(), *self.buffers()))
        if self._constants is None or self._constants[0] != (key, state):
            self._constants = ((key, state), make())
        return self._constants[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache: it belongs to these very tensors."""
        return self.__dict__ | {"_constants": None}


def float_input(x: QTensor) -> Tensor:
    """``float32(q) * float32(scale)``, as everywhere."""
    return x.values * torch.tensor(x.scale, dtype=torch.float32, device=x.values.device)
