"""Add, subtract, multiply and divide: two tensors, a tensor and a constant, a tensor and a number."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, fx

from carkp_core.ir import operators as ir
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import TensorType
from carkp_core.quant import exact
from carkp_core.quant.constants import raised_scale, tensor_multiplier
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import IrOp, Layer, Shape
from carkp_core.quant.operators import Call, OperatorDefinition, is_constant, is_number, is_tensor
from carkp_core.quant.ops.constant import constant
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.scaling import Scaled
from carkp_core.quant.ops.table import Table
from carkp_core.quant.rescale import AddTerm, Factor, added, rescaled

if TYPE_CHECKING:
    from carkp_core.export.onnx_builder import OnnxBuilder


class Add(Layer):
    """Sum of two tensors with signs, each rescaled with 15 fractional bits, then the clamp."""

    kind: ClassVar[str] = "add"
    takes_bounds: ClassVar[bool] = True

    def __init__(self, negative: tuple[bool, bool] = (False, False)) -> None:
        super().__init__()
        self.negative = negative

    def float_forward(self, *inputs: Tensor) -> Tensor:
        a, b = (-x if negative else x for x, negative in zip(inputs, self.negative, strict=True))
        return self.bounds.apply(a + b)

    def _plan(self, scales: tuple[float, ...]) -> tuple[float, list[tuple[int, int]]]:
        scale = raised_scale(self.wanted_scale(), scales, in_add=True)
        return scale, [tensor_multiplier(s, 1.0, scale, in_add=True) for s in scales]

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        scale, rescales = self._plan(tuple(x.scale for x in inputs))
        terms = [
            AddTerm(x.values, Factor.of(multiplier, shift, 1 << 15, x.values), negative)
            for x, (multiplier, shift), negative in zip(inputs, rescales, self.negative, strict=True)
        ]
        return QTensor(added(terms, *self.bounds.limits(scale, self.dtype)), scale, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        scale, rescales = self._plan(tuple(x.scale for x in inputs))
        terms = tuple(ir.Term(m, s, negative) for (m, s), negative in zip(rescales, self.negative, strict=True))
        return IrOp(ir.Add(terms, *self.bounds.limits(scale, self.dtype)), self.dtype, scale)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        (a, b), (negative_a, negative_b) = inputs, self.negative
        if negative_a and negative_b:
            a = builder.node("Neg", [a], f"{self.label}.neg")
        elif negative_a:
            a, b = b, a
        return self.bounded(builder, builder.node("Sub" if negative_a or negative_b else "Add", [a, b], self.label))


class Mul(Layer):
    """Product of two tensors, rescaled."""

    kind: ClassVar[str] = "mul"
    takes_bounds: ClassVar[bool] = True

    def float_forward(self, *inputs: Tensor) -> Tensor:
        return self.bounds.apply(inputs[0] * inputs[1])

    def _plan(self, a: float, b: float) -> tuple[float, tuple[int, int]]:
        product = exact_product(a, b)
        scale = raised_scale(self.wanted_scale(), [product], in_add=False)
        return scale, tensor_multiplier(a, b, scale)

    def integer_forward(self, *inputs: QTensor) -> QTensor:
        a, b = inputs
        scale, (multiplier, shift) = self._plan(a.scale, b.scale)
        bound = INT_RANGE[a.dtype][0] * INT_RANGE[b.dtype][0]
        # Two int16 factors make up to 2**30, beyond float32's whole numbers.
        product = a.values * b.values if bound <= exact.FLOAT32_BOUND else a.values.double() * b.values.double()
        factor = Factor.of(multiplier, shift, bound, a.values)
        lo, hi = self.bounds.limits(scale, self.dtype)
        return QTensor(rescaled(product, None, factor, lo, hi), scale, self.dtype)

    def to_ir(self, *inputs: TensorType) -> IrOp:
        scale, (multiplier, shift) = self._plan(inputs[0].scale, inputs[1].scale)
        return IrOp(ir.Mul(multiplier, shift, *self.bounds.limits(scale, self.dtype)), self.dtype, scale)

    def to_onnx(self, builder: OnnxBuilder, inputs: Sequence[str], shapes: Sequence[Shape], shape: Shape) -> str:
        return self.bounded(builder, builder.node("Mul", inputs, self.label))


def exact_product(a: float, b: float) -> float:
    """float32(a b), the step of a product."""
    return float(torch.tensor(a, dtype=torch.float32) * torch.tensor(b, dtype=torch.float32))


def affine_number(x: Tensor, factor: float, offset: float) -> Tensor:
    """``factor x + offset``."""
    return x * factor + offset


def affine(factor: float, offset: float, title: str) -> Table:
    """The table of ``factor x + offset``."""
    function = functools.partial(affine_number, factor=factor, offset=offset)
    return Table(function, "affine", {"factor": factor, "offset": offset}, title=title)


def inverse_number(x: Tensor, numerator: float) -> Tensor:
    """``numerator / x``."""
    return numerator / x


def _lower_sum(call: Call, a: Any, b: Any, sign_a: float, sign_b: float) -> fx.Node | None:
    """``sign_a a + sign_b b`` where either may be a number or a constant."""
    if is_tensor(a) and is_tensor(b):
        if abs(sign_a) != 1 or abs(sign_b) != 1 or not call.batched(a, b):
            return None
        return call.emit(Add((sign_a < 0, sign_b < 0)), a, b)
    x, other, sign_x, sign_other = (a, b, sign_a, sign_b) if is_tensor(a) else (b, a, sign_b, sign_a)
    if not is_tensor(x) or not call.batched(x):
        return None
    if is_number(other):
        offset = sign_other * float(other)
        if (sign_x, offset) == (1, 0.0):
            return x
        name = f"{'-' if sign_x == -1 else ''}x{offset:+g}" if abs(sign_x) == 1 else f"{sign_x:g}x{offset:+g}"
        return call.emit(affine(sign_x, offset, name), x)
    if not is_constant(other) or abs(sign_x) != 1:
        return None
    channels = _per_channel(call, x, other)
    if channels is not None:
        weight = torch.full((len(channels), 1, 1, 1), float(sign_x))
        return call.emit(Conv2d(weight, sign_other * channels, groups=len(channels)), x)
    term = constant(call, sign_other * other, len(call.shape_of(x)))
    return None if term is None else call.emit(Add((sign_x < 0, False)), x, term)


def _lower_product(call: Call, a: Any, b: Any) -> fx.Node | None:
    if is_tensor(a) and is_tensor(b):
        return call.emit(Mul(), a, b) if call.batched(a, b) else None
    x, other = (a, b) if is_tensor(a) else (b, a)
    if not is_tensor(x) or not call.batched(x):
        return None
    if is_number(other):
        factor = float(other)
        if factor == 1.0:
            return x
        exact_here = 0.0 < factor < math.inf
        return call.emit(Scaled(factor) if exact_here else affine(factor, 0.0, f"{factor:g}x"), x)
    if not is_constant(other):
        return None
    channels = _per_channel(call, x, other)
    if channels is not None:
        return call.emit(Conv2d(channels[:, None, None, None], None, groups=len(channels)), x)
    factors = constant(call, other, len(call.shape_of(x)))
    return None if factors is None else call.emit(Mul(), x, factors)


def _per_channel(call: Call, x: fx.Node, constant: Tensor) -> Tensor | None:
    """The values [C] of a constant that only varies along the channels of a 4-D tensor, else None."""
    shape = call.shape_of(x)
    if len(shape) != 4 or tuple(call.shape) != shape:
        return None
    full = constant.reshape((1,) * (4 - constant.ndim) + tuple(constant.shape))
    if tuple(full.shape) != (1, shape[1], 1, 1):
        return None
    return full.reshape(-1).detach().float()


def _alpha(call: Call) -> float:
    return float(call.args.get("alpha", 1))


def _lower_add(call: Call) -> fx.Node | None:
    return _lower_sum(call, call.args["input"], call.args["other"], 1.0, _alpha(call))


def _lower_sub(call: Call) -> fx.Node | None:
    return _lower_sum(call, call.args["input"], call.args["other"], 1.0, -_alpha(call))


def _lower_rsub(call: Call) -> fx.Node | None:
    return _lower_sum(call, call.args["other"], call.args["input"], 1.0, -_alpha(call))


def _lower_mul(call: Call) -> fx.Node | None:
    return _lower_product(call, call.args["input"], call.args["other"])


def _lower_div(call: Call) -> fx.Node | None:
    a, b = call.args["input"], call.args["other"]
    if call.args["rounding_mode"] is not None:
        return None
    if is_tensor(a) and not is_tensor(b):
        return _lower_product(call, a, 1.0 / b)
    if is_tensor(b) and is_number(a):
        return _inverse(call, b, float(a))
    if is_tensor(a) and call.batched(a, b):
        return call.emit(Mul(), a, _inverse(call, b, 1.0))
    return None


def _lower_addcmul(call: Call) -> fx.Node | None:
    """``input + value tensor1 tensor2``, any of them a constant."""
    x, one, other, value = (call.args[name] for name in ("input", "tensor1", "tensor2", "value"))
    if not is_tensor(one) and not is_tensor(other):
        return _lower_sum(call, x, value * one * other, 1.0, 1.0)
    shape = np.broadcast_shapes(*(call.shape_of(t) if is_tensor(t) else t.shape for t in (one, other)))
    product = _lower_product(call.with_shape(shape), one, other)
    if product is not None:
        product = _lower_product(call.with_shape(shape), product, value)
    return None if product is None else _lower_sum(call, x, product, 1.0, 1.0)


def _lower_rdiv(call: Call) -> fx.Node | None:
    x, numerator = call.args["input"], call.args["other"]
    return _inverse(call, x, float(numerator)) if is_tensor(x) and is_number(numerator) else None


def _inverse(call: Call, x: fx.Node, numerator: float) -> fx.Node:
    function = functools.partial(inverse_number, numerator=numerator)
    table = Table(function, "inverse", {"numerator": numerator}, title=f"{numerator:g}/x")
    return call.emit(table, x, shape=call.shape_of(x))


_TWO = ("input", "other", "alpha=1")
ADD = OperatorDefinition("add", _lower_add, calls=("add", "iadd", "radd"), parameters=_TWO)
SUB = OperatorDefinition("sub", _lower_sub, calls=("sub", "subtract", "isub"), parameters=_TWO)
RSUB = OperatorDefinition("rsub", _lower_rsub, calls=("rsub",), parameters=_TWO)
MUL = OperatorDefinition("mul", _lower_mul, calls=("mul", "multiply", "imul", "rmul"), parameters=("input", "other"))
DIV = OperatorDefinition(
    "div", _lower_div, calls=("div", "divide", "true_divide", "truediv", "itruediv"),
    parameters=("input", "other", "rounding_mode=None"),
)  # fmt: skip
RDIV = OperatorDefinition("rdiv", _lower_rdiv, calls=("rdiv", "rtruediv"), parameters=("input", "other"))
ADDCMUL = OperatorDefinition(
    "addcmul", _lower_addcmul, calls=("addcmul",), parameters=("input", "tensor1", "tensor2", "value=1")
)
