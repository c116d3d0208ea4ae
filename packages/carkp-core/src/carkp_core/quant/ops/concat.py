"""Concatenation and stacking: each input is rescaled to the common steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, fx

from carkp_core.ir import operators as ir
from carkp_core.ir.graph import TensorType
from carkp_core.quant.constants import raised_scale, tensor_multiplier
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import Bounds, IrOp, Layer, Shape
from carkp_core.quant.operators import Call, OperatorDefinition, is_constant, is_tensor
from carkp_core.quant.ops.constant import constant
from carkp_core.quant.ops.elementwise import Add
from carkp_core.quant.ops.move import Reshape, Slice
from carkp_core.quant.ops.table import Clamp
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


def filled(call: Call, x: fx.Node, axis: int, count: int, value: float) -> list[fx.Node]:
    """Tensors that are ``count`` long along an axis and hold one value: parts of another, clamped to it."""
    shape, made = call.shape_of(x), []
    for start in range(0, count, shape[axis]):
        size = (*shape[:axis], min(shape[axis], count - start), *shape[axis + 1 :])
        some = call.emit(Slice(axis, 0, size[axis]), x, shape=size)
        made.append(call.emit(Clamp(Bounds(value, value)), some, shape=size))
    return made


def _lower_cat(call: Call) -> fx.Node | None:
    given = list(call.args["tensors"])
    axis = call.args["dim"] % len(call.shape)
    like = next((part for part in given if is_tensor(part)), None)
    if axis == 0 or like is None:
        return None
    parts: list[fx.Node] = []
    for part in given:
        made = [part] if is_tensor(part) else _written(call, part, like, axis)
        if made is None:
            return None
        parts += made
    return parts[0] if len(parts) == 1 else call.emit(Concat(axis), *parts)


def _written(call: Call, value: Any, like: fx.Node, axis: int) -> list[fx.Node] | None:
    """A constant part of a concatenation, with the batch of another part."""
    if not is_constant(value) or value.ndim != len(call.shape):
        return None
    first = float(value.reshape(-1)[0])
    if bool((value == first).all()):
        return filled(call, like, axis, value.shape[axis], first)
    zeros, shape = filled(call, like, axis, value.shape[axis], 0.0), (call.layers.batch, *value.shape[1:])
    offset = constant(call, value, value.ndim)
    if offset is None:
        return None
    zero = zeros[0] if len(zeros) == 1 else call.emit(Concat(axis), *zeros, shape=shape)
    return [call.emit(Add(), zero, offset, shape=shape)]


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
