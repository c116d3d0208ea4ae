"""Convolution, transposed convolution, linear layer: weights, bias, rescale per channel, clamp, residual.

Legend: ``N`` batch, ``I O`` channels, ``H W`` size; weights OIHW, transposed IOHW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from carkp_core.ir import operators as ir
from carkp_core.ir.graph import TensorType
from carkp_core.quant import exact
from carkp_core.quant.constants import (
    WEIGHT_LIMIT,
    WeightedConstants,
    raised_scale,
    tensor_multiplier,
    weighted_constants,
)
from carkp_core.quant.exact import Factor, QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape, float_input
from carkp_core.quant.operators import Call, OperatorDefinition, is_constant, is_tensor

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder

Tlbr = tuple[int, int, int, int]
Hw = tuple[int, int]
NO_PADDING: Tlbr = (0, 0, 0, 0)


class Weighted(Layer):
    """What convolution and transposed convolution share."""

    takes_bounds = True

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone().float())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone().float())
        self.groups = groups
        #: Batch norm that QAT keeps beside the weights (``with_bn``); evaluation folds its running statistics.
        self.bn: nn.BatchNorm2d | None = None
        self.reverse_fold = False

    @property
    def out_channels(self) -> int:
        """O."""
        raise NotImplementedError

    def rows(self, weight: Tensor) -> Tensor:
        """Weights as [O, count]."""
        raise NotImplementedError

    def unrows(self, rows: Tensor) -> Tensor:
        """The inverse of ``rows``."""
        raise NotImplementedError

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The sum of products."""
        raise NotImplementedError

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with the batch norm's running statistics folded in."""
        if self.bn is None:
            return self.weight, self.bias
        return fold(self, self.weight, self.bias, self.bn)

    def float_forward(self, *inputs: Tensor) -> Tensor:
        weight, bias = self.folded()
        return self.bounds.apply(self.convolve(inputs[0], weight, bias))

    def constants(self, x: QTensor, residual: QTensor | None = None) -> WeightedConstants:
        """The integers, for these inputs; remembered until a tensor changes."""
        scale_r = None if residual is None else residual.scale
        return self._integers(x.scale, x.dtype, scale_r)

    def _integers(self, scale_x: float, dtype_x: str, scale_r: float | None) -> WeightedConstants:
        def make() -> WeightedConstants:
            with torch.no_grad():
                weight, bias = self.folded()
                scale_y = self.wanted_scale()
                if scale_r is not None:
                    scale_y = raised_scale(scale_y, [scale_r], in_add=True)
                rows, in_add, name = self.rows(weight), scale_r is not None, str(self.source) or self.label
                return weighted_constants(rows, bias, scale_x, dtype_x, scale_y, in_add, name)

        return self.cached((scale_x, dtype_x, scale_r), make)  # type: ignore[no-any-return]

    def accumulate(self, x: QTensor, c: WeightedConstants) -> tuple[Tensor, Tensor]:
        """The sum of products (float32 where that is exact, else float64) and the bias, with gradients."""
        weight, bias = self.folded()
        whole = exact.through(weight, self.unrows(c.weight), 1.0 / self.unrows_scale(c.scale_w))
        offset = c.bias
        if bias is not None:
            offset = exact.through(bias, offset, 1.0 / c.scale_acc)
        if c.products_bound < exact.FLOAT32_BOUND:
            return self.convolve(x.values, whole, None), offset
        return self.convolve(x.values.double(), whole.double(), None), offset

    def train_with_batch_norm(self, x: QTensor, residual: QTensor | None, sign: float) -> QTensor:
        """QAT with the batch's own statistics: quantized weights, float batch norm, quantized output.

        With ``reverse_fold`` the weights are quantized as evaluation will have them, scaled by the running statistics,
        and the sum is scaled back; otherwise as they are. Per channel the two differ in roundings only.
        """
        assert self.bn is not None
        c = self.constants(x, residual)
        weight, factor = self.weight, torch.ones_like(c.scale_w)
        if self.reverse_fold:
            assert self.bn.running_var is not None
            factor = (self.bn.weight.detach() * (self.bn.running_var + self.bn.eps).rsqrt()).double()
            factor = torch.where(factor.abs() < 1e-6, torch.full_like(factor, 1e-6), factor)
        scaled = self.rows(weight) * factor[:, None].float()
        scale_w = (scaled.detach().abs().amax(dim=1) / WEIGHT_LIMIT).clamp_min(1e-30)[:, None]
        steps = (scaled.detach() / scale_w).round_() * scale_w
        rows = exact.through(scaled, steps, 1.0) / factor[:, None].float()
        y = self.bn(self.convolve(float_input(x), self.unrows(rows), self.bias))
        if residual is not None:
            y = y + sign * float_input(residual)
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        return QTensor(exact.quantize(y, c.scale_y, lo, hi), c.scale_y, self.dtype)

    def unrows_scale(self, scale_w: Tensor) -> Tensor:
        """s_w shaped to broadcast over the weight."""
        return self.unrows(scale_w.float()[:, None].expand(-1, self.rows(self.weight).shape[1]))

    def _onnx_weights(self, builder: OnnxBuilder) -> list[str]:
        weight, bias = self.folded()
        written = [builder.constant(weight.detach().numpy(), f"{self.label}.weight")]
        return written if bias is None else [*written, builder.constant(bias.detach().numpy(), f"{self.label}.bias")]

    def notes(self) -> list[str]:
        if self._constants is None:
            return []
        c: WeightedConstants = self._constants[1]
        notes = []
        if c.dead:
            notes.append(f"{len(c.dead)} dead channel(s), only their bias remains: {_some(c.dead)}")
        if c.raised:
            notes.append(f"{len(c.raised)} channel(s) with a raised weight scale, so fewer steps: {_some(c.raised)}")
        if c.scale_y > float(self.scale) > 0:
            notes.append(f"output scale raised from {float(self.scale):.4g} to {c.scale_y:.4g}")
        return notes


class Conv2d(Weighted):
    """Convolution; ``residual`` is "" or the sign with which a second input is added before the clamp."""

    kind: ClassVar[str] = "conv2d"

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Hw = (1, 1),
        padding: Tlbr = NO_PADDING,
        dilation: Hw = (1, 1),
        groups: int = 1,
    ) -> None:
        super().__init__(weight, bias, groups)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.residual = ""

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[0])

    def rows(self, weight: Tensor) -> Tensor:
        return weight.flatten(1)

    def unrows(self, rows: Tensor) -> Tensor:
        return rows.reshape(self.weight.shape)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        top, left, bottom, right = self.padding
        if (top, left) == (bottom, right):
            return F.conv2d(x, weight, bias, self.stride, (top, left), self.dilation, self.groups)
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)

    def float_forward(self, *inputs: Tensor) -> Tensor:
        weight, bias = self.folded()
        y = self.convolve(inputs[0], weight, bias)
        if self.residual:
            y = y + inputs[1] if self.residual == "+" else y - inputs[1]
        return self.bounds.apply(y)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        top, left, bottom, right = self.padding
        y = builder.node(
            "Conv",
            [inputs[0], *self._onnx_weights(builder)],
            self.label,
            kernel_shape=list(self.weight.shape[2:]),
            strides=list(self.stride),
            pads=[top, left, bottom, right],
            dilations=list(self.dilation),
            group=self.groups,
        )
        if self.residual:
            y = builder.node("Add" if self.residual == "+" else "Sub", [y, inputs[1]], f"{self.label}.residual")
        return self.bounded(builder, y)

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        x, residual = inputs[0], inputs[1] if self.residual else None
        if self.bn is not None and self.training:
            return self.train_with_batch_norm(x, residual, -1.0 if self.residual == "-" else 1.0)
        c = self.constants(x, residual)
        acc, bias = self.accumulate(x, c)
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        factor = Factor.of(c.multiplier, c.shift, c.bound, acc, channels_dim=4)
        offset = bias.reshape(1, -1, 1, 1)
        if residual is None:
            return QTensor(exact.rescale(acc, offset, factor, lo, hi), c.scale_y, self.dtype)
        multiplier, shift = tensor_multiplier(residual.scale, 1.0, c.scale_y, in_add=True)
        term = exact.rescale_term(residual.values, None, Factor.of(multiplier, shift, 1 << 15, acc))
        total = exact.rescale_term(acc, offset, factor)
        total = total + term if self.residual == "+" else total - term
        return QTensor(exact.finish_add(total, lo, hi), c.scale_y, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        scale_r = inputs[1].scale if self.residual else None
        c = self._integers(x.scale, x.dtype, scale_r)
        term = None
        if scale_r is not None:
            term = ir.Term(*tensor_multiplier(scale_r, 1.0, c.scale_y, in_add=True), negative=self.residual == "-")
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        op = ir.Conv2d(
            **_arrays(self, c),
            lo=lo,
            hi=hi,
            stride_hw=self.stride,
            padding_tlbr=self.padding,
            dilation_hw=self.dilation,
            groups=self.groups,
            residual=term,
        )
        return IrOp(op, self.dtype, c.scale_y)


class ConvTranspose2d(Weighted):
    """Transposed convolution."""

    kind: ClassVar[str] = "conv_transpose2d"

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Hw = (1, 1),
        padding: Hw = (0, 0),
        output_padding: Hw = (0, 0),
        groups: int = 1,
    ) -> None:
        super().__init__(weight, bias, groups)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[1]) * self.groups

    def rows(self, weight: Tensor) -> Tensor:
        inside, per_group, kh, kw = weight.shape
        grouped = weight.reshape(self.groups, inside // self.groups, per_group, kh, kw)
        return grouped.transpose(1, 2).reshape(per_group * self.groups, -1)

    def unrows(self, rows: Tensor) -> Tensor:
        inside, per_group, kh, kw = self.weight.shape
        grouped = rows.reshape(self.groups, per_group, inside // self.groups, kh, kw)
        return grouped.transpose(1, 2).reshape(self.weight.shape)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv_transpose2d(x, weight, bias, self.stride, self.padding, self.output_padding, self.groups)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        y = builder.node(
            "ConvTranspose",
            [inputs[0], *self._onnx_weights(builder)],
            self.label,
            kernel_shape=list(self.weight.shape[2:]),
            strides=list(self.stride),
            pads=[*self.padding, *self.padding],
            output_padding=list(self.output_padding),
            group=self.groups,
        )
        return self.bounded(builder, y)

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        if self.bn is not None and self.training:
            return self.train_with_batch_norm(inputs[0], None, 1.0)
        c = self.constants(inputs[0])
        acc, bias = self.accumulate(inputs[0], c)
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        factor = Factor.of(c.multiplier, c.shift, c.bound, acc, channels_dim=4)
        return QTensor(exact.rescale(acc, bias.reshape(1, -1, 1, 1), factor, lo, hi), c.scale_y, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        c = self._integers(inputs[0].scale, inputs[0].dtype, None)
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        top, left = self.padding
        op = ir.ConvTranspose2d(
            **_arrays(self, c),
            lo=lo,
            hi=hi,
            stride_hw=self.stride,
            padding_tlbr=(top, left, top, left),
            output_padding_hw=self.output_padding,
            groups=self.groups,
        )
        return IrOp(op, self.dtype, c.scale_y)


def fold(layer: Weighted, weight: Tensor, bias: Tensor | None, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals ``bn(layer(x))`` with running statistics.

    w' = w g / sqrt(var + eps),  b' = (b - mean) g / sqrt(var + eps) + beta
    """
    assert bn.running_mean is not None
    assert bn.running_var is not None
    factor = (bn.running_var + bn.eps).rsqrt()
    if bn.weight is not None:
        factor = factor * bn.weight
    shifted = -bn.running_mean if bias is None else bias - bn.running_mean
    new_bias = shifted * factor
    if bn.bias is not None:
        new_bias = new_bias + bn.bias
    return layer.unrows(layer.rows(weight) * factor[:, None]), new_bias


def _arrays(layer: Weighted, c: WeightedConstants) -> dict[str, Any]:
    return {
        "weight": layer.unrows(c.weight).cpu().numpy(),
        "bias": c.bias.cpu().numpy(),
        "multiplier": c.multiplier,
        "shift": c.shift,
    }


def _some(channels: tuple[int, ...]) -> str:
    head = ", ".join(map(str, channels[:8]))
    return head + (", ..." if len(channels) > 8 else "")


def pair(value: Any) -> Hw:
    """An int or a pair as (vertical, horizontal)."""
    if isinstance(value, int):
        return (value, value)
    first, *rest = value
    return (int(first), int(rest[0] if rest else first))


def _lower_conv2d(call: Call) -> fx.Node | None:
    args = call.args
    if not is_tensor(args["input"]) or not is_constant(args["weight"]) or len(call.shape_of(args["input"])) != 4:
        return None
    weight, dilation = args["weight"], pair(args["dilation"])
    if args["padding"] == "valid":
        padding = NO_PADDING
    elif args["padding"] == "same":
        spans = [dilation[d] * (weight.shape[2 + d] - 1) for d in (0, 1)]
        padding = (spans[0] // 2, spans[1] // 2, spans[0] - spans[0] // 2, spans[1] - spans[1] // 2)
    else:
        top, left = pair(args["padding"])
        padding = (top, left, top, left)
    layer = Conv2d(weight, args["bias"], pair(args["stride"]), padding, dilation, int(args["groups"]))
    return call.emit(layer, args["input"])


def _lower_conv_transpose2d(call: Call) -> fx.Node | None:
    args = call.args
    if not is_tensor(args["input"]) or not is_constant(args["weight"]) or pair(args["dilation"]) != (1, 1):
        return None
    if len(call.shape_of(args["input"])) != 4:
        return None
    layer = ConvTranspose2d(
        args["weight"],
        args["bias"],
        pair(args["stride"]),
        pair(args["padding"]),
        pair(args["output_padding"]),
        int(args["groups"]),
    )
    return call.emit(layer, args["input"])


CONV2D = OperatorDefinition(
    "conv2d",
    _lower_conv2d,
    calls=("conv2d",),
    parameters=("input", "weight", "bias=None", "stride=1", "padding=0", "dilation=1", "groups=1"),
)
CONV_TRANSPOSE2D = OperatorDefinition(
    "conv_transpose2d",
    _lower_conv_transpose2d,
    calls=("conv_transpose2d",),
    parameters=(
        "input", "weight", "bias=None", "stride=1", "padding=0", "output_padding=0", "groups=1", "dilation=1",
    ),
)  # fmt: skip
