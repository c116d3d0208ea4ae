"""``torch.maximum`` of two feature maps as an operator: pattern, shape rule, integer semantics, ONNX form.

Integer semantics: both inputs are rescaled to the output's steps (RESCALE of ``carkp_core.ir.arithmetic``, clamped
to the output's type), then compared:

    q = max(rescale(a, m_a, s_a), rescale(b, m_b, s_b))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, fx

from carkp_core.ir import arithmetic
from carkp_core.ir.graph import Operation, TensorType
from carkp_core.ir.operators import Term
from carkp_core.quant.constants import raised_scale, tensor_multiplier
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape
from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.rescale import Factor, rescaled

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder


@frozen
class Maximum(Operation):
    """The operator of the integer model. ``terms`` are the rescales of the two inputs; ``lo`` and ``hi`` clamp them."""

    kind: ClassVar[str] = "maximum"
    terms: tuple[Term, ...]
    lo: int
    hi: int

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ValueError(f"maximum takes two tensors of one shape, not {shapes}")
        return shapes[0]

    def execute(self, inputs: tuple[np.ndarray[Any, Any], ...]) -> np.ndarray[Any, Any]:
        a, b = (
            arithmetic.rescale(x, term.multiplier, term.shift, self.lo, self.hi)
            for x, term in zip(inputs, self.terms, strict=True)
        )
        return np.maximum(a, b)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], name: str) -> str:
        """The float operator between dequantized inputs, in the QDQ export."""
        return builder.node("Max", inputs, name)


class MaximumLayer(Layer):
    """What stands in the network while it is calibrated and trained: the same numbers as ``Maximum``."""

    kind: ClassVar[str] = "maximum"

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return torch.maximum(*inputs)

    def _plan(self, scales: tuple[float, ...]) -> tuple[float, list[tuple[int, int]]]:
        """The output's scale, and multiplier and shift of each input."""
        scale = raised_scale(self.wanted_scale(), scales, in_add=False)
        return scale, [tensor_multiplier(s, 1.0, scale) for s in scales]

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        scale, rescales = self._plan(tuple(x.scale for x in inputs))
        lo, hi = arithmetic.INT_RANGE[self.dtype]
        a, b = (
            rescaled(x.values, None, Factor.of(multiplier, shift, 1 << 15, x.values), lo, hi)
            for x, (multiplier, shift) in zip(inputs, rescales, strict=True)
        )
        return QTensor(torch.maximum(a, b), scale, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        scale, rescales = self._plan(tuple(x.scale for x in inputs))
        op = Maximum(tuple(Term(*rescale) for rescale in rescales), *arithmetic.INT_RANGE[self.dtype])
        return IrOp(op, self.dtype, scale)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        return builder.node("Max", inputs, self.label)


def lower(call: Call) -> fx.Node | None:
    """Two feature maps of one shape; anything else (a constant, a broadcast) is left to others."""
    a, b = call.args["input"], call.args["other"]
    if not (is_tensor(a) and is_tensor(b) and call.batched(a, b) and call.shape_of(a) == call.shape_of(b)):
        return None
    return call.emit(MaximumLayer(), a, b)


MAXIMUM = OperatorDefinition("maximum", lower, calls=("maximum",), parameters=("input", "other"), operations=(Maximum,))
