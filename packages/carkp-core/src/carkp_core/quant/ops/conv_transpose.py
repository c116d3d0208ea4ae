"""Transposed convolution; with stride 1 a convolution. Legend: ``I O`` channels; weights [I, O / groups, kh, kw]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, fx

from carkp_core.ir import operators as ir
from carkp_core.ir.graph import TensorType
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Shape, origin_of
from carkp_core.quant.operators import Call, OperatorDefinition, is_constant, is_tensor
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.weighted import Hw, Weighted, pair, stored_arrays
from carkp_core.quant.rescale import rescaled

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder


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
            [inputs[0], *self.onnx_weights(builder)],
            self.label,
            kernel_shape=list(self.weight.shape[2:]),
            strides=list(self.stride),
            pads=[*self.padding, *self.padding],
            output_padding=list(self.output_padding),
            group=self.groups,
        )
        return self.bounded(builder, y)

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        if self.bn is not None and self.bn.training:
            return self.train_with_batch_norm(inputs[0], None, 1.0)
        c = self.constants(inputs[0])
        acc, bias = self.accumulate(inputs[0], c)
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        factor = self.factor(c, acc)
        return QTensor(rescaled(acc, bias.reshape(1, -1, 1, 1), factor, lo, hi), c.scale_y, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        c = self.integers(inputs[0].scale, inputs[0].dtype, None)
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        top, left = self.padding
        op = ir.ConvTranspose2d(
            **stored_arrays(self, c),
            lo=lo,
            hi=hi,
            stride_hw=self.stride,
            padding_tlbr=(top, left, top, left),
            output_padding_hw=self.output_padding,
            groups=self.groups,
        )
        return IrOp(op, self.dtype, c.scale_y)


def _lower_conv_transpose2d(call: Call) -> fx.Node | None:
    args = call.args
    if not is_tensor(args["input"]) or not is_constant(args["weight"]) or len(call.shape_of(args["input"])) != 4:
        return None
    if pair(args["stride"]) == (1, 1) and pair(args["output_padding"]) == (0, 0):
        conv = _as_convolution(args)
        if conv is not None:
            return call.emit(conv, args["input"])
    if pair(args["dilation"]) != (1, 1):
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


def _as_convolution(args: Mapping[str, Any]) -> Conv2d | None:
    """With stride 1 it is a convolution with the kernel turned round; None where that would cut off a border."""
    weight, groups, dilation = args["weight"], int(args["groups"]), pair(args["dilation"])
    inside, outside, kh, kw = weight.shape
    turned = weight.flip(2, 3).reshape(groups, inside // groups, outside, kh, kw).transpose(1, 2)
    top, left = (d * (k - 1) - p for d, k, p in zip(dilation, (kh, kw), pair(args["padding"]), strict=True))
    if min(top, left) < 0:
        return None
    padding = (top, left, top, left)
    conv = Conv2d(turned.reshape(-1, inside // groups, kh, kw), args["bias"], (1, 1), padding, dilation, groups)
    conv.origin = origin_of(weight, args["bias"])
    return conv


CONV_TRANSPOSE2D = OperatorDefinition(
    "conv_transpose2d",
    _lower_conv_transpose2d,
    calls=("conv_transpose2d",),
    parameters=(
        "input", "weight", "bias=None", "stride=1", "padding=0", "output_padding=0", "groups=1", "dilation=1",
    ),
)  # fmt: skip
