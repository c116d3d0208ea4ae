"""Scalar functions in ONNX operators: ``WRITERS[name](builder, x, label, **parameters)`` returns the output's name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from carkp_core.export.onnx_builder import OnnxBuilder

Writer = Callable[..., str]


def _unary(op_type: str, **attributes: Any) -> Writer:
    def write(b: OnnxBuilder, x: str, label: str) -> str:
        return b.node(op_type, [x], label, **attributes)

    return write


def _with(op_type: str, **renamed: str) -> Writer:
    """An operator whose attributes are the function's parameters under other names."""

    def write(b: OnnxBuilder, x: str, label: str, **parameters: float) -> str:
        attributes = {renamed[key]: float(value) for key, value in parameters.items() if key in renamed}
        return b.node(op_type, [x], label, **attributes)

    return write


def _silu(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("Mul", [x, b.node("Sigmoid", [x], f"{label}.sigmoid")], label)


def _hardsigmoid(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("HardSigmoid", [x], label, alpha=1.0 / 6.0, beta=0.5)


def _hardswish(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("Mul", [x, _hardsigmoid(b, x, f"{label}.gate")], label)


def _gelu(b: OnnxBuilder, x: str, label: str, approximate: str) -> str:
    half = b.constant(0.5, f"{label}.half")
    one = b.constant(1.0, f"{label}.one")
    if approximate == "tanh":
        cubic = b.node("Mul", [b.node("Mul", [x, x], f"{label}.square"), x], f"{label}.cube")
        scaled = b.node("Mul", [cubic, b.constant(0.044715, f"{label}.cubic")], f"{label}.cubic_term")
        total = b.node("Add", [x, scaled], f"{label}.polynomial")
        inner = b.node("Mul", [total, b.constant(math.sqrt(2.0 / math.pi), f"{label}.root")], f"{label}.inner")
        curve = b.node("Tanh", [inner], f"{label}.tanh")
    else:
        inner = b.node("Mul", [x, b.constant(math.sqrt(0.5), f"{label}.root")], f"{label}.inner")
        curve = b.node("Erf", [inner], f"{label}.erf")
    gate = b.node("Mul", [b.node("Add", [curve, one], f"{label}.plus"), half], f"{label}.gate")
    return b.node("Mul", [x, gate], label)


def _softplus(b: OnnxBuilder, x: str, label: str, beta: float = 1.0, threshold: float = 20.0) -> str:
    if beta == 1.0:
        return b.node("Softplus", [x], label)
    slope = b.constant(beta, f"{label}.beta")
    return b.node(
        "Div", [b.node("Softplus", [b.node("Mul", [x, slope], f"{label}.scaled")], f"{label}.soft"), slope], label
    )


def _mish(b: OnnxBuilder, x: str, label: str) -> str:
    gate = b.node("Tanh", [b.node("Softplus", [x], f"{label}.softplus")], f"{label}.tanh")
    return b.node("Mul", [x, gate], label)


def _logsigmoid(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("Neg", [b.node("Softplus", [b.node("Neg", [x], f"{label}.neg")], f"{label}.softplus")], label)


def _tanhshrink(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("Sub", [x, b.node("Tanh", [x], f"{label}.tanh")], label)


def _softshrink(b: OnnxBuilder, x: str, label: str, lambd: float) -> str:
    return b.node("Shrink", [x], label, bias=float(lambd), lambd=float(lambd))


def _threshold(b: OnnxBuilder, x: str, label: str, threshold: float, value: float) -> str:
    above = b.node("Greater", [x, b.constant(threshold, f"{label}.threshold")], f"{label}.above")
    return b.node("Where", [above, x, b.constant(value, f"{label}.value")], label)


def _rsqrt(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("Reciprocal", [b.node("Sqrt", [x], f"{label}.sqrt")], label)


def _square(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("Mul", [x, x], label)


def _log1p(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("Log", [b.node("Add", [x, b.constant(1.0, f"{label}.one")], f"{label}.plus")], label)


def _expm1(b: OnnxBuilder, x: str, label: str) -> str:
    return b.node("Sub", [b.node("Exp", [x], f"{label}.exp"), b.constant(1.0, f"{label}.one")], label)


def _affine(b: OnnxBuilder, x: str, label: str, factor: float, offset: float) -> str:
    if factor != 1.0:
        x = b.node("Mul", [x, b.constant(factor, f"{label}.factor")], f"{label}.scaled" if offset else label)
    return b.node("Add", [x, b.constant(offset, f"{label}.offset")], label) if offset or factor == 1.0 else x


def _inverse(b: OnnxBuilder, x: str, label: str, numerator: float) -> str:
    return b.node("Div", [b.constant(numerator, f"{label}.numerator"), x], label)


def _pow(b: OnnxBuilder, x: str, label: str, exponent: float) -> str:
    return b.node("Pow", [x, b.constant(exponent, f"{label}.exponent")], label)


WRITERS: dict[str, Writer] = {
    "sigmoid": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "silu": _silu,
    "hardswish": _hardswish,
    "hardsigmoid": _hardsigmoid,
    "gelu": _gelu,
    "leaky_relu": _with("LeakyRelu", negative_slope="alpha"),
    "elu": _with("Elu", alpha="alpha"),
    "celu": _with("Celu", alpha="alpha"),
    "selu": _unary("Selu"),
    "mish": _mish,
    "softplus": _softplus,
    "softsign": _unary("Softsign"),
    "logsigmoid": _logsigmoid,
    "tanhshrink": _tanhshrink,
    "hardshrink": _with("Shrink", lambd="lambd"),
    "softshrink": _softshrink,
    "threshold": _threshold,
    "abs": _unary("Abs"),
    "neg": _unary("Neg"),
    "exp": _unary("Exp"),
    "log": _unary("Log"),
    "sqrt": _unary("Sqrt"),
    "rsqrt": _rsqrt,
    "square": _square,
    "reciprocal": _unary("Reciprocal"),
    "erf": _unary("Erf"),
    "sin": _unary("Sin"),
    "cos": _unary("Cos"),
    "floor": _unary("Floor"),
    "ceil": _unary("Ceil"),
    "round": _unary("Round"),
    "sign": _unary("Sign"),
    "log1p": _log1p,
    "expm1": _expm1,
    "affine": _affine,
    "inverse": _inverse,
    "pow": _pow,
}
