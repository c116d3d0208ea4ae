"""Constant tensors: the operand of an add or a mul, a part of a concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, fx

from carkp_core.ir import operators as ir
from carkp_core.ir.arithmetic import quantize
from carkp_core.ir.graph import TensorType
from carkp_core.quant.constants import safe_scale
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape
from carkp_core.quant.operators import Call, is_constant

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder


class Constant(Layer):
    """A constant tensor [1, ...], quantized by its own greatest value."""

    kind: ClassVar[str] = "constant"
    own_scale: ClassVar[bool] = False

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach().clone().float())
        self.value: Tensor

    def _quantized(self) -> tuple[Any, float]:
        def make() -> tuple[Any, float]:
            scale = safe_scale(float(self.value.abs().max()), self.dtype)
            return quantize(self.value.cpu().numpy(), scale, self.dtype), scale

        return self.cached((self.dtype,), make)  # type: ignore[no-any-return]

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return self.value

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        value, scale = self._quantized()
        return QTensor(torch.from_numpy(value).to(self.value), scale, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        value, scale = self._quantized()
        return IrOp(ir.Constant(value), self.dtype, scale)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        return builder.constant(self.value.numpy(), self.label)


def constant(call: Call, value: Any, rank: int) -> fx.Node | None:
    """A constant as a layer with so many dimensions, the batch in front; None when it differs between samples."""
    if not is_constant(value) or value.ndim > rank:
        return None
    full = value.reshape((1,) * (rank - value.ndim) + tuple(value.shape))
    if not bool((full == full[:1]).all()):
        return None
    return call.emit(Constant(full[:1]), shape=(call.layers.batch, *full.shape[1:]))
