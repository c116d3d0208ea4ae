"""Convolution: weights, bias, rescale per channel, clamp, residual. Legend: ``O`` output channels; weights OIHW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import Tensor, fx

from carkp_core.ir import operators as ir
from carkp_core.ir.graph import TensorType
from carkp_core.quant.constants import tensor_multiplier
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Shape
from carkp_core.quant.operators import Call, OperatorDefinition, is_constant, is_tensor
from carkp_core.quant.ops.weighted import NO_PADDING, Hw, Tlbr, Weighted, pair, stored_arrays
from carkp_core.quant.rescale import AddTerm, Factor, added, rescaled

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder


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
            [inputs[0], *self.onnx_weights(builder)],
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
        if self.bn is not None and self.bn.training:
            return self.train_with_batch_norm(x, residual, -1.0 if self.residual == "-" else 1.0)
        c = self.constants(x, residual)
        acc, bias = self.accumulate(x, c)
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        factor = self.factor(c, acc)
        offset = bias.reshape(1, -1, 1, 1)
        if residual is None:
            return QTensor(rescaled(acc, offset, factor, lo, hi), c.scale_y, self.dtype)
        multiplier, shift = tensor_multiplier(residual.scale, 1.0, c.scale_y, in_add=True)
        other = Factor.of(multiplier, shift, 1 << 15, acc)
        terms = (AddTerm(acc, factor, bias=offset), AddTerm(residual.values, other, self.residual == "-"))
        return QTensor(added(terms, lo, hi), c.scale_y, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        scale_r = inputs[1].scale if self.residual else None
        c = self.integers(x.scale, x.dtype, scale_r)
        term = None
        if scale_r is not None:
            term = ir.Term(*tensor_multiplier(scale_r, 1.0, c.scale_y, in_add=True), negative=self.residual == "-")
        lo, hi = self.bounds.limits(c.scale_y, self.dtype)
        op = ir.Conv2d(
            **stored_arrays(self, c),
            lo=lo,
            hi=hi,
            stride_hw=self.stride,
            padding_tlbr=self.padding,
            dilation_hw=self.dilation,
            groups=self.groups,
            residual=term,
        )
        return IrOp(op, self.dtype, c.scale_y)


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


CONV2D = OperatorDefinition(
    "conv2d",
    _lower_conv2d,
    calls=("conv2d",),
    parameters=("input", "weight", "bias=None", "stride=1", "padding=0", "dilation=1", "groups=1"),
)
