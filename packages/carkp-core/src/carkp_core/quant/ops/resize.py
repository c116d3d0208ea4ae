"""Nearest and bilinear resize, as TOSA's RESIZE: output position o samples (o d + offset) / n.

Nearest follows torch: floor(o in / out). Bilinear is torch's, with or without aligned corners.
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
from carkp_core.quant import exact
from carkp_core.quant.constants import raised_scale, tensor_multiplier
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape
from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.ops.channels import chosen_channels
from carkp_core.quant.ops.concat import Concat
from carkp_core.quant.ops.move import Move
from carkp_core.quant.rescale import Factor, rescaled

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder

Hw = tuple[int, int]


class Size:
    """The output's size: fixed, or factors of the input's."""

    def __init__(self, size: Hw | None, factors: tuple[float, float] | None) -> None:
        self.size, self.factors = size, factors

    def __call__(self, input_hw: Any) -> Hw:
        if self.size is not None:
            return self.size
        assert self.factors is not None
        return (math.floor(input_hw[0] * self.factors[0]), math.floor(input_hw[1] * self.factors[1]))


class ResizeNearest(Move):
    """Nearest neighbour; keeps the steps."""

    kind: ClassVar[str] = "resize_nearest"

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def float_forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        height, width = self.size(x.shape[2:])
        rows = torch.arange(height, device=x.device) * x.shape[2] // height
        columns = torch.arange(width, device=x.device) * x.shape[3] // width
        return x[:, :, rows][:, :, :, columns]

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        out = self.size(x.shape[2:])
        # Half up of (2 in o - out) / (2 out) is the floor of o in / out.
        plans = [_reduced(2 * out[d], 2 * x.shape[2 + d], -out[d]) for d in (0, 1)]
        lo, hi = INT_RANGE[x.dtype]
        return self._ir(x, _resize("nearest", out, plans, lo=lo, hi=hi))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        return _onnx_resize(builder, inputs[0], self.label, shape, "nearest", "asymmetric")


class ResizeBilinear(Layer):
    """Bilinear interpolation in integers: four neighbours weighted in units of 1 / n, then one rescale."""

    kind: ClassVar[str] = "resize_bilinear"
    takes_bounds: ClassVar[bool] = True

    def __init__(self, size: Size, align_corners: bool) -> None:
        super().__init__()
        self.size, self.align_corners = size, align_corners

    def float_forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        size = self.size(x.shape[2:])
        return self.bounds.apply(F.interpolate(x, size, mode="bilinear", align_corners=self.align_corners))

    def _steps(self, size: int, out: int) -> tuple[int, int, int]:
        """Numerator, denominator, offset of one direction."""
        if self.align_corners:
            return _reduced(max(out - 1, 1), size - 1 if out > 1 else 0, 0)
        return _reduced(2 * out, 2 * size, size - out)

    def _plan(self, scale_x: float, plans: Any) -> tuple[float, tuple[int, int]]:
        scale = raised_scale(self.wanted_scale(), [scale_x], in_add=False)
        return scale, tensor_multiplier(scale_x, 1.0 / (plans[0][0] * plans[1][0]), scale)

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        x = inputs[0]
        out = self.size(x.values.shape[2:])
        plans = [self._steps(int(x.values.shape[2 + d]), out[d]) for d in (0, 1)]
        bound = plans[0][0] * plans[1][0] * (1 << (7 if x.dtype == "int8" else 15))
        values = x.values if bound <= exact.FLOAT32_BOUND else x.values.double()
        total = _interpolate(_interpolate(values, 2, out[0], plans[0]), 3, out[1], plans[1])
        scale, (multiplier, shift) = self._plan(x.scale, plans)
        lo, hi = self.bounds.limits(scale, self.dtype)
        factor = Factor.of(multiplier, shift, bound, total)
        return QTensor(rescaled(total, None, factor, lo, hi), scale, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        out = self.size(x.shape[2:])
        plans = [self._steps(x.shape[2 + d], out[d]) for d in (0, 1)]
        scale, (multiplier, shift) = self._plan(x.scale, plans)
        lo, hi = self.bounds.limits(scale, self.dtype)
        return IrOp(
            _resize("bilinear", out, plans, multiplier=multiplier, shift=shift, lo=lo, hi=hi), self.dtype, scale
        )

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        positions = "align_corners" if self.align_corners else "half_pixel"
        return self.bounded(builder, _onnx_resize(builder, inputs[0], self.label, shape, "linear", positions))


def _onnx_resize(builder: OnnxBuilder, x: str, label: str, shape: Shape, mode: str, positions: str) -> str:
    sizes = builder.constant(list(shape), f"{label}.sizes", "int64")
    return builder.node(
        "Resize",
        [x, "", "", sizes],
        label,
        mode=mode,
        coordinate_transformation_mode=positions,
        nearest_mode="floor" if mode == "nearest" else None,
    )


def _reduced(numerator: int, denominator: int, offset: int) -> tuple[int, int, int]:
    common = math.gcd(numerator, denominator, offset)
    return numerator // common, denominator // common, offset // common


def _resize(mode: str, out: Hw, plans: Any, **rescale: Any) -> ir.Resize:
    numerators, denominators, offsets = ((plans[0][i], plans[1][i]) for i in range(3))
    return ir.Resize(mode, out, numerators, denominators, offsets, **rescale)


def _interpolate(x: Tensor, axis: int, out: int, plan: tuple[int, int, int]) -> Tensor:
    """One direction, scaled by its numerator."""
    numerator, denominator, offset = plan
    position = torch.arange(out, device=x.device) * denominator + offset
    whole = torch.div(position, numerator, rounding_mode="floor")
    rest = (position - whole * numerator).to(x.dtype).reshape(-1, *([1] * (3 - axis)))
    last = x.shape[axis] - 1
    near = x.index_select(axis, whole.clamp(0, last))
    far = x.index_select(axis, (whole + 1).clamp(0, last))
    return near * (numerator - rest) + far * rest


def _lower(call: Call) -> fx.Node | None:
    args = call.args
    x, mode = args["input"], args["mode"]
    if not is_tensor(x) or len(call.shape_of(x)) != 4 or mode not in ("nearest", "bilinear") or args["antialias"]:
        return None
    size_in, size_out = call.shape_of(x)[2:], call.shape[2:]
    factors = args["scale_factor"]
    if args["size"] is None and factors is not None:
        pairs = tuple(factors) if isinstance(factors, (tuple, list)) else (factors, factors)
        if any(s * f != o for s, f, o in zip(size_in, pairs, size_out, strict=True)):
            # torch then samples by the factor, not by the sizes.
            if not args["recompute_scale_factor"]:
                return None
            size = Size((size_out[0], size_out[1]), None)
        else:
            size = Size(None, (float(pairs[0]), float(pairs[1])))
    else:
        size = Size((size_out[0], size_out[1]), None)
    if mode == "nearest":
        return call.emit(ResizeNearest(size), x) if _as_torch(size_in, size_out) else None
    return call.emit(ResizeBilinear(size, bool(args["align_corners"])), x)


def _lower_expand(call: Call) -> fx.Node | None:
    """Repeating the only channel is a convolution, the only pixel a nearest resize, a row or column a concat."""
    x: fx.Node = call.args["input"]
    shape, out = call.shape_of(x), tuple(call.shape)
    if shape == out:
        return x
    grows = len(shape) == 4 == len(out) and all(s in (1, o) for s, o in zip(shape, out, strict=True))
    if not grows or not call.batched(x):
        return None
    if shape[1] != out[1]:
        x = chosen_channels(call, x, [0] * out[1])
    if is_even_enlargement(shape[2:], out[2:]):
        return call.emit(ResizeNearest(Size((out[2], out[3]), None)), x)
    for axis in (2, 3):
        if shape[axis] != out[axis]:
            x = call.emit(Concat(axis), *[x] * out[axis], shape=(*out[:axis], out[axis], *shape[axis + 1 :]))
    return x


def is_even_enlargement(size_in: Sequence[int], size_out: Sequence[int]) -> bool:
    """True where both directions grow by the same power of two: no NPU refuses that of a nearest resize."""
    (factor, rest), (other, other_rest) = (divmod(o, s) for s, o in zip(size_in, size_out, strict=True))
    return factor == other > 1 and rest == other_rest == 0 and factor & (factor - 1) == 0


def _as_torch(size_in: Any, size_out: Any) -> bool:
    """True where torch's float32 positions give the same pixels as whole numbers do."""
    for size, out in zip(size_in, size_out, strict=True):
        line = torch.arange(size, dtype=torch.float32).reshape(1, 1, -1)
        chosen = F.interpolate(line, size=out, mode="nearest").reshape(-1).long()
        if not torch.equal(chosen, torch.arange(out) * size // out):
            return False
    return True


EXPAND = OperatorDefinition(
    "expand", _lower_expand, calls=("expand", "expand_as", "broadcast_to"), parameters=("input", "*rest")
)
RESIZE = OperatorDefinition(
    "resize",
    _lower,
    calls=("interpolate", "upsample", "upsample_nearest", "upsample_bilinear"),
    parameters=(
        "input", "size=None", "scale_factor=None", "mode='nearest'", "align_corners=None",
        "recompute_scale_factor=None", "antialias=False",
    ),
)  # fmt: skip
