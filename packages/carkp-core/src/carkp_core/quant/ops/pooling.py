"""Maximum and average pooling, of windows and of the whole map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from carkp_core.ir import operators as ir
from carkp_core.ir.graph import TensorType
from carkp_core.quant import exact
from carkp_core.quant.constants import raised_scale, tensor_multiplier
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape
from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.ops.move import Move
from carkp_core.quant.ops.weighted import pair
from carkp_core.quant.rescale import Factor, rescaled

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder

Hw = tuple[int, int]


class MaxPool(Move):
    """Maximum of a window; ``kernel`` None means the whole input."""

    kind: ClassVar[str] = "max_pool"

    def __init__(self, kernel: Hw | None, stride: Hw, padding: Hw, dilation: Hw, ceil: bool) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.dilation, self.ceil = kernel, stride, padding, dilation, ceil

    def float_forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        if self.kernel is None:
            return x.amax(dim=(2, 3), keepdim=True)
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        size = x.shape[2:]
        kernel = self.kernel or (size[0], size[1])
        out = [
            _out_size(size[d], kernel[d], self.stride[d], self.padding[d], self.dilation[d], self.ceil) for d in (0, 1)
        ]
        padding = _padding_tlbr(size, kernel, self.stride, self.padding, self.dilation, out)
        return self._ir(x, ir.MaxPool(kernel, self.stride, padding, self.dilation))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        op: Any = self.to_ir(TensorType(tuple(shapes[0]), "int8", 1.0)).op
        return builder.node(
            "MaxPool",
            inputs,
            self.label,
            kernel_shape=list(op.kernel_hw),
            strides=list(op.stride_hw),
            pads=list(op.padding_tlbr),
            dilations=list(op.dilation_hw),
        )


class AvgPool(Layer):
    """Mean of a window: int32 sum, rescaled by the count; ``kernel`` None means the whole input."""

    kind: ClassVar[str] = "avg_pool"
    takes_bounds: ClassVar[bool] = True

    def __init__(
        self,
        kernel: Hw | None,
        stride: Hw = (1, 1),
        padding: Hw = (0, 0),
        ceil: bool = False,
        include_pad: bool = True,
        divisor: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.ceil, self.include_pad, self.divisor = ceil, include_pad, divisor

    def _window(self, size: Any) -> Hw:
        return self.kernel or (int(size[0]), int(size[1]))

    def _pool(self, x: Tensor, divisor: int | None) -> Tensor:
        kernel = self._window(x.shape[2:])
        return F.avg_pool2d(x, kernel, self.stride, self.padding, self.ceil, self.include_pad, divisor)

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return self.bounds.apply(self._pool(inputs[0], self.divisor))

    def _plan(self, scale_x: float, kernel: Hw) -> tuple[float, Any, Any]:
        """Output scale, and multiplier and shift for each count of summed positions."""

        def make() -> tuple[float, Any, Any]:
            # A window smaller than 1 / limit of the scale's steps never occurs: the raise is for safety.
            scale = raised_scale(self.wanted_scale(), [scale_x], in_add=False)
            counts = np.arange(kernel[0] * kernel[1] + 1)
            divisors = np.full_like(counts, self.divisor) if self.divisor else np.maximum(counts, 1)
            pairs = [tensor_multiplier(scale_x, float(np.float32(1.0 / d)), scale) for d in divisors]
            multiplier, shift = np.asarray(pairs, dtype=np.int64).T
            return scale, multiplier, shift

        return self.cached((scale_x, kernel), make)  # type: ignore[no-any-return]

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        x = inputs[0]
        kernel = self._window(x.values.shape[2:])
        scale, multiplier, shift = self._plan(x.scale, kernel)
        bound = kernel[0] * kernel[1] * (1 << (7 if x.dtype == "int8" else 15))
        values = x.values if bound <= exact.FLOAT32_BOUND else x.values.double()
        total = self._pool(values, 1)
        counts = self._counts(x.values)
        factor = Factor.of(multiplier[counts], shift[counts], bound, total)
        lo, hi = self.bounds.limits(scale, self.dtype)
        return QTensor(rescaled(total, None, factor, lo, hi), scale, self.dtype)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        size = shapes[0][2:]
        kernel = self._window(size)
        # The windows' sums are kernel times a mean that counts all padding; the divisors make the rest of the rule.
        mean = builder.node(
            "AveragePool",
            inputs,
            self.label,
            kernel_shape=list(kernel),
            strides=list(self.stride),
            pads=list(_padding_tlbr(size, kernel, self.stride, self.padding, (1, 1), [shape[2], shape[3]])),
            count_include_pad=1,
        )
        counts = self._counts(torch.zeros(1, 1, *size))
        share = kernel[0] * kernel[1] / (np.maximum(counts, 1) if self.divisor is None else counts * 0 + self.divisor)
        if not np.all(share == 1.0):
            mean = builder.node("Mul", [mean, builder.constant(share, f"{self.label}.share")], f"{self.label}.counted")
        return self.bounded(builder, mean)

    def _counts(self, x: Tensor) -> Any:
        """Summed positions of each window, int64 [1, 1, Y, X]."""
        top, left = self.padding
        ones = torch.ones(1, 1, *x.shape[2:], dtype=torch.float64)
        if self.include_pad:
            ones = F.pad(ones, (left, left, top, top), value=1.0)
        else:
            ones = F.pad(ones, (left, left, top, top))
        kernel = self._window(x.shape[2:])
        # The padding is explicit now, so that ceil mode's excess counts nothing, as in torch.
        count = F.avg_pool2d(ones, kernel, self.stride, 0, self.ceil, False, 1)
        height, width = self._pool(x[:1, :1].detach().double(), 1).shape[2:]
        return np.rint(count[:, :, :height, :width].numpy()).astype(np.int64)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        size = x.shape[2:]
        kernel = self._window(size)
        scale, multiplier, shift = self._plan(x.scale, kernel)
        out = [_out_size(size[d], kernel[d], self.stride[d], self.padding[d], 1, self.ceil) for d in (0, 1)]
        lo, hi = self.bounds.limits(scale, self.dtype)
        op = ir.AvgPool(
            kernel,
            self.stride,
            _padding_tlbr(size, kernel, self.stride, self.padding, (1, 1), out),
            self.include_pad,
            (size[0] + 2 * self.padding[0], size[1] + 2 * self.padding[1]),
            multiplier,
            shift,
            lo,
            hi,
        )
        return IrOp(op, self.dtype, scale)


def _out_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """Torch's rule: in ceil mode the last window must start inside the input or its left padding."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = -(-span // stride) + 1 if ceil else span // stride + 1
    if ceil and (out - 1) * stride >= size + padding:
        out -= 1
    return out


def _padding_tlbr(
    size: Any, kernel: Hw, stride: Hw, padding: Hw, dilation: Hw, out: list[int]
) -> tuple[int, int, int, int]:
    """Padding whose bottom and right reach as far as the last window, or the symmetric one where that is more."""
    ends = []
    for d in (0, 1):
        reach = (out[d] - 1) * stride[d] + dilation[d] * (kernel[d] - 1) + 1
        ends.append(max(padding[d], reach - size[d] - padding[d]))
    return (padding[0], padding[1], ends[0], ends[1])


def is_map(call: Call, x: Any) -> bool:
    """True for a tensor [N, C, H, W]."""
    return is_tensor(x) and len(call.shape_of(x)) == 4 and call.batched(x)


def _lower_max_pool(call: Call) -> fx.Node | list[fx.Node | None] | None:
    args = call.args
    if not is_map(call, args["input"]):
        return None
    several = not isinstance(call.shape, tuple)  # the indices too
    kernel = pair(args["kernel_size"])
    stride = pair(args["stride"]) if args["stride"] not in (None, [], ()) else kernel
    layer = MaxPool(kernel, stride, pair(args["padding"]), pair(args["dilation"]), bool(args["ceil_mode"]))
    pooled = call.emit(layer, args["input"], shape=call.shape[0] if several else None)
    return [pooled, None] if several else pooled


def _lower_avg_pool(call: Call) -> fx.Node | None:
    args = call.args
    if not is_map(call, args["input"]):
        return None
    kernel = pair(args["kernel_size"])
    stride = pair(args["stride"]) if args["stride"] not in (None, [], ()) else kernel
    layer = AvgPool(
        kernel,
        stride,
        pair(args["padding"]),
        bool(args["ceil_mode"]),
        bool(args["count_include_pad"]),
        args["divisor_override"],
    )
    return call.emit(layer, args["input"])


MAX_POOL = OperatorDefinition(
    "max_pool2d",
    _lower_max_pool,
    calls=("max_pool2d", "max_pool2d_with_indices"),
    parameters=(
        "input", "kernel_size", "stride=None", "padding=0", "dilation=1", "ceil_mode=False", "return_indices=False",
    ),
)  # fmt: skip
AVG_POOL = OperatorDefinition(
    "avg_pool2d",
    _lower_avg_pool,
    calls=("avg_pool2d",),
    parameters=(
        "input", "kernel_size", "stride=None", "padding=0", "ceil_mode=False", "count_include_pad=True",
        "divisor_override=None",
    ),
)  # fmt: skip
