"""Operators that move or select elements and keep their steps: reshape, transpose, slice, pad; the calls that select.

Legend: shapes of layers leave out the batch; axes count it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from carkp_core.ir import operators as ir
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import TensorType
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape
from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder


class Move(Layer):
    """Base: the float function does for whole numbers as well."""

    own_scale = False

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        x = inputs[0]
        return QTensor(self.float_forward(x.values), x.scale, x.dtype)

    def _ir(self, x: TensorType, op: Any) -> IrOp:
        return IrOp(op, x.dtype, x.scale)


class Reshape(Move):
    """The same elements of each sample in another shape."""

    kind: ClassVar[str] = "reshape"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(int(size) for size in shape)

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(inputs[0].shape[0], *self.shape)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        return self._ir(inputs[0], ir.Reshape((1, *self.shape)))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        target = builder.constant([1, *self.shape], f"{self.label}.shape", "int64")
        return builder.node("Reshape", [inputs[0], target], self.label)


class Transpose(Move):
    """Permutation of the dimensions; the batch stays first."""

    kind: ClassVar[str] = "transpose"

    def __init__(self, permutation: Sequence[int]) -> None:
        super().__init__()
        self.permutation = tuple(permutation)

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].permute(self.permutation)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        return self._ir(inputs[0], ir.Transpose(self.permutation))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        return builder.node("Transpose", [inputs[0]], self.label, perm=list(self.permutation))


class Slice(Move):
    """``start:stop:step`` of one axis."""

    kind: ClassVar[str] = "slice"

    def __init__(self, axis: int, start: int, stop: int, step: int = 1) -> None:
        super().__init__()
        self.axis, self.start, self.stop, self.step = axis, start, stop, step

    def float_forward(self, *inputs: Tensor) -> Tensor:
        index = [slice(None)] * inputs[0].ndim
        index[self.axis] = slice(self.start, self.stop, self.step)
        return inputs[0][tuple(index)]

    def to_ir(self, *inputs: TensorType) -> IrOp:
        return self._ir(inputs[0], ir.Slice(self.axis, self.start, self.stop, self.step))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        numbers = {"starts": self.start, "ends": self.stop, "axes": self.axis, "steps": self.step}
        written = [builder.constant([value], f"{self.label}.{key}", "int64") for key, value in numbers.items()]
        return builder.node("Slice", [inputs[0], *written], self.label)


class Pad(Move):
    """Constant padding of H and W; the value rounds half even to a step."""

    kind: ClassVar[str] = "pad"

    def __init__(self, padding_tlbr: tuple[int, int, int, int], value: float = 0.0) -> None:
        super().__init__()
        self.padding, self.value = padding_tlbr, value

    def _pad(self, x: Tensor, value: float) -> Tensor:
        top, left, bottom, right = self.padding
        return F.pad(x, (left, right, top, bottom), value=value)

    def _steps(self, scale: float, dtype: str) -> int:
        lowest, highest = INT_RANGE[dtype]
        return min(highest, max(lowest, round(min(max(self.value / scale, -1e6), 1e6))))

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return self._pad(inputs[0], self.value)

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        x = inputs[0]
        return QTensor(self._pad(x.values, self._steps(x.scale, x.dtype)), x.scale, x.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        return self._ir(x, ir.Pad(self.padding, self._steps(x.scale, x.dtype)))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        top, left, bottom, right = self.padding
        pads = builder.constant([0, 0, top, left, 0, 0, bottom, right], f"{self.label}.pads", "int64")
        return builder.node("Pad", [inputs[0], pads, builder.constant(self.value, f"{self.label}.value")], self.label)


def _lower_identity(call: Call) -> fx.Node | None:
    x: fx.Node = call.args["input"]
    return x if is_tensor(x) and call.shape_of(x) == tuple(call.shape) else None


def _lower_reshape(call: Call) -> fx.Node | None:
    """Any call that keeps every sample's elements in order: the result's shape says all."""
    x = call.args["input"]
    shape = tuple(call.shape)
    if not is_tensor(x) or not call.batched(x) or not shape or shape[0] != call.layers.batch:
        return None
    if math.prod(shape) != math.prod(call.shape_of(x)):
        return None
    return call.emit(Reshape(shape[1:]), x)


def _lower_split(call: Call) -> list[fx.Node] | None:
    """Chunk, split and unbind: the sizes of the results say where each begins."""
    x, axis = call.args["input"], call.args["dim"]
    if not is_tensor(x) or not call.batched(x):
        return None
    rank = len(call.shape_of(x))
    axis %= rank
    if axis == 0:
        return None
    parts, start = [], 0
    for shape in call.shape:
        selects = len(shape) == rank - 1
        size = 1 if selects else shape[axis]
        kept = (*shape[:axis], 1, *shape[axis:]) if selects else shape
        part = call.emit(Slice(axis, start, start + size), x, shape=kept)
        parts.append(call.emit(Reshape(shape[1:]), part, shape=shape) if selects else part)
        start += size
    return parts


def _lower_getitem(call: Call) -> fx.Node | None:
    """Basic indexing: slices, integers, ``...`` and None; the batch is taken whole."""
    x: fx.Node = call.args["input"]
    index = call.args["index"]
    if not is_tensor(x) or not call.batched(x):
        return None
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(item is None or item is Ellipsis or isinstance(item, (int, slice)) for item in items):
        return None
    shape = list(call.shape_of(x))
    named = sum(item is not None and item is not Ellipsis for item in items)
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (len(shape) - named)
    axis, reshaped = 0, False
    for item in items:
        if item is None:
            reshaped = True
            continue
        span = item if isinstance(item, slice) else slice(item % shape[axis], item % shape[axis] + 1)
        reshaped |= isinstance(item, int)
        start, stop, step = span.indices(shape[axis])
        if (start, stop, step) != (0, shape[axis], 1):
            if axis == 0 or step < 1 or stop <= start:
                return None
            shape[axis] = len(range(start, stop, step))
            x = call.emit(Slice(axis, start, stop, step), x, shape=shape)
        axis += 1
    if not reshaped:
        return x
    return call.emit(Reshape(call.shape[1:]), x) if call.shape[0] == call.layers.batch else None


def _lower_narrow(call: Call) -> fx.Node | None:
    x, axis, start = call.args["input"], call.args["dim"], call.args["start"]
    if not is_tensor(x) or not call.batched(x) or axis % len(call.shape_of(x)) == 0:
        return None
    return call.emit(Slice(axis % len(call.shape_of(x)), start, start + call.args["length"]), x)


def _lower_select(call: Call) -> fx.Node | None:
    x = call.args["input"]
    if not is_tensor(x):
        return None
    shape = call.shape_of(x)
    axis = call.args["dim"] % len(shape)
    if axis == 0 or not call.batched(x):
        return None
    start = call.args["index"] % shape[axis]
    part = call.emit(Slice(axis, start, start + 1), x, shape=(*shape[:axis], 1, *shape[axis + 1 :]))
    return call.emit(Reshape(call.shape[1:]), part)


def _lower_to(call: Call) -> fx.Node | None:
    """Casts between float types do nothing here."""
    dtypes = [value for value in call.args["rest"] if isinstance(value, torch.dtype)]
    return _lower_identity(call) if all(dtype.is_floating_point for dtype in dtypes) else None


IDENTITY = OperatorDefinition(
    "identity",
    _lower_identity,
    calls=(
        "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout", "contiguous", "clone",
        "detach", "float", "data", "requires_grad", "alias", "identity",
    ),
    parameters=("input", "*rest"),
)  # fmt: skip
CAST = OperatorDefinition("cast", _lower_to, calls=("to", "type_as", "type"), parameters=("input", "*rest"))
RESHAPE = OperatorDefinition(
    "reshape",
    _lower_reshape,
    calls=("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel"),
    parameters=("input", "*rest"),
)
SPLIT = OperatorDefinition(
    "split", _lower_split, calls=("split", "chunk", "tensor_split", "split_with_sizes"),
    parameters=("input", "sections=None", "dim=0"),
)  # fmt: skip
UNBIND = OperatorDefinition("unbind", _lower_split, calls=("unbind",), parameters=("input", "dim=0"))
GETITEM = OperatorDefinition("getitem", _lower_getitem, calls=("getitem",), parameters=("input", "index"))
NARROW = OperatorDefinition("narrow", _lower_narrow, calls=("narrow",), parameters=("input", "dim", "start", "length"))
SELECT = OperatorDefinition("select", _lower_select, calls=("select",), parameters=("input", "dim", "index"))
