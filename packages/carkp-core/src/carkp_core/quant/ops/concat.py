"""Concatenation and stacking: each input is rescaled to the common steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, fx

from carkp_core.ir import operators as ir
from carkp_core.ir.graph import TensorType
from carkp_core.quant.constants import raised_scale, tensor_multiplier
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape
from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.ops.move import Reshape
from carkp_core.quant.rescale import Factor, rescaled

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder


class Concat(Layer):
    """Concatenation along an axis other than the batch."""

    kind: ClassVar[str] = "concat"
    takes_bounds: ClassVar[bool] = True

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return self.bounds.apply(torch.cat(inputs, dim=self.axis))

    def _plan(self, scales: tuple[float, ...]) -> tuple[float, list[tuple[int, int]]]:
        scale = raised_scale(self.wanted_scale(), scales, in_add=False)
        return scale, [tensor_multiplier(s, 1.0, scale) for s in scales]

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        scale, rescales = self._plan(tuple(x.scale for x in inputs))
        lo, hi = self.bounds.limits(scale, self.dtype)
        parts = [
            rescaled(x.values, None, Factor.of(m, s, 1 << 15, x.values), lo, hi)
            for x, (m, s) in zip(inputs, rescales, strict=True)
        ]
        return QTensor(torch.cat(parts, dim=self.axis), scale, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        scale, rescales = self._plan(tuple(x.scale for x in inputs))
        terms = tuple(ir.Term(m, s) for m, s in rescales)
        return IrOp(ir.Concat(terms, self.axis, *self.bounds.limits(scale, self.dtype)), self.dtype, scale)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        return self.bounded(builder, builder.node("Concat", inputs, self.label, axis=self.axis))


def _lower_cat(call: Call) -> fx.Node | None:
    parts = list(call.args["tensors"])
    if not all(is_tensor(p) for p in parts) or not call.batched(*parts):
        return None
    axis = call.args["dim"] % len(call.shape)
    if axis == 0:
        return None
    return parts[0] if len(parts) == 1 else call.emit(Concat(axis), *parts)


def _lower_stack(call: Call) -> fx.Node | None:
    parts = list(call.args["tensors"])
    if not all(is_tensor(p) for p in parts) or not call.batched(*parts):
        return None
    axis = call.args["dim"] % len(call.shape)
    if axis == 0:
        return None
    single = (*call.shape[:axis], 1, *call.shape[axis + 1 :])
    parts = [call.emit(Reshape(single[1:]), part, shape=single) for part in parts]
    return parts[0] if len(parts) == 1 else call.emit(Concat(axis), *parts)


CONCAT = OperatorDefinition(
    "concat", _lower_cat, calls=("cat", "concat", "concatenate"), parameters=("tensors", "dim=0")
)
STACK = OperatorDefinition("stack", _lower_stack, calls=("stack",), parameters=("tensors", "dim=0"))
