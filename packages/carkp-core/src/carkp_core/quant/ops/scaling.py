"""Multiplication by a positive number: the same whole numbers, which stand for other values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from carkp_core.ir import operators as ir
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import TensorType
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder


class Scaled(Layer):
    """``factor x``, exact: the steps are ``factor`` times as large."""

    kind: ClassVar[str] = "scaled"
    own_scale: ClassVar[bool] = False

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def _scale(self, scale_x: float) -> float:
        return float(np.float32(self.factor * scale_x))

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * self.factor

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        x = inputs[0]
        return QTensor(x.values, self._scale(x.scale), x.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        x = inputs[0]
        return IrOp(ir.Rescale(1 << 30, 30, *INT_RANGE[x.dtype]), x.dtype, self._scale(x.scale))

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        factor = builder.constant(self.factor, f"{self.label}.factor")
        return builder.node("Mul", [inputs[0], factor], self.label)
