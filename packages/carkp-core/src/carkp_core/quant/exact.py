"""Integer arithmetic on float tensors: the fake quantizer's half of ``ir.arithmetic``, with straight-through gradients.

Values are whole numbers held in floats. Two ways, chosen from a proven bound of the accumulator:

* up to 2**28, float64: a multiplier has 24 significant bits, so the product has at most 52 and is exact, and adding
  one half keeps it below 2**53. Where the shift is so large that the half does not line up with the last bit,
  the product is below 1/4 and the sum cannot be rounded across 1/2.
* beyond, int64, as ``ir.arithmetic`` itself.

Gradients pass straight through the rounding, and are zero where the clamp acts.

Legend: ``C`` channels on dimension 1; factors are [1, C, 1, 1] or scalars.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from carkp_core.ir.arithmetic import ADD_FRACTION_BITS, ADD_TERM_LIMIT

#: Largest accumulator that a float64 product with a 24-bit multiplier carries exactly.
FLOAT64_BOUND = 1 << 28
#: Largest sum that a float32 convolution of whole numbers carries exactly.
FLOAT32_BOUND = 1 << 24


@frozen(eq=False)
class QTensor:
    """Whole numbers in float32, the float32 value of one step, and the integer type that they stay inside."""

    values: Tensor
    scale: float
    dtype: str


@frozen(eq=False)
class Factor:
    """One rescale, per channel or for all: multiplier and shift, their ratio, and the accumulator's bound."""

    multiplier: Tensor  # int64
    shift: Tensor  # int64
    ratio: Tensor  # float64, multiplier / 2**shift exactly
    bound: int

    @staticmethod
    def of(multiplier: Any, shift: Any, bound: int, like: Tensor, channels_dim: int | None = None) -> Factor:
        """Make a factor on the device of ``like``; with ``channels_dim`` its dimension 1 holds the channels."""
        m, s = (torch.as_tensor(np.asarray(v, dtype=np.int64), device=like.device) for v in (multiplier, shift))
        if channels_dim is not None:
            m, s = (v.reshape(1, -1, *([1] * (channels_dim - 2))) for v in (m, s))
        ratio = torch.ldexp(m.double(), -s)
        return Factor(m, s, ratio, int(bound))


#: Dropping the fractional bits of an add is a product with a power of two: exact in float64 for any sum.
FINISH_RATIO = 2.0**-ADD_FRACTION_BITS


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """No reduced precision and no algorithm that is not a plain sum of products (Winograd, FFT)."""
    if torch.cuda.is_available():
        with torch.backends.cudnn.flags(enabled=False, allow_tf32=False), torch.backends.nnpack.flags(enabled=False):
            allowed = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = False
            try:
                yield
            finally:
                torch.backends.cuda.matmul.allow_tf32 = allowed
        return
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.nnpack.flags(enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def rescale(acc: Tensor, bias: Tensor | None, factor: Factor, lo: int, hi: int) -> Tensor:
    """RESCALE of ``acc + bias``, float32. ``bias`` is float64, shaped as the factor."""
    return _Rescale.apply(acc, bias, factor, 0, lo, hi)  # type: ignore[no-any-return, no-untyped-call]


def rescale_term(acc: Tensor, bias: Tensor | None, factor: Factor) -> Tensor:
    """One term of an add with 15 fractional bits, float64."""
    return _Rescale.apply(acc, bias, factor, ADD_FRACTION_BITS, -ADD_TERM_LIMIT, ADD_TERM_LIMIT)  # type: ignore[no-any-return, no-untyped-call]


def finish_add(total: Tensor, lo: int, hi: int) -> Tensor:
    """Drop an add's fractional bits, clamp, float32."""
    return _Finish.apply(total, lo, hi)  # type: ignore[no-any-return, no-untyped-call]


def through(source: Tensor, value: Tensor, factor: Tensor | float) -> Tensor:
    """``value`` forward; backward, its gradient times ``factor`` to ``source``."""
    if not (torch.is_grad_enabled() and source.requires_grad):
        return value
    return _Through.apply(source, value, factor)  # type: ignore[no-any-return, no-untyped-call]


class _Rescale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, acc: Tensor, bias: Tensor | None, factor: Factor, fraction: int, lo: int, hi: int) -> Tensor:
        rounded = _rounded(acc, bias, factor, fraction)
        ctx.factor, ctx.fraction, ctx.has_bias = factor, fraction, bias is not None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            ctx.save_for_backward((rounded >= lo) & (rounded <= hi))
            ctx.bias_shape = None if bias is None else bias.shape
        return rounded.clamp_(lo, hi) if fraction else rounded.clamp_(lo, hi).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        ratio = ctx.factor.ratio * 2.0**ctx.fraction
        passed = gradients[0] * inside * ratio.to(gradients[0].dtype)
        bias = passed.sum_to_size(ctx.bias_shape).double() if ctx.has_bias and ctx.needs_input_grad[1] else None
        return passed.float() if ctx.needs_input_grad[0] else None, bias, None, None, None, None


def _rounded(acc: Tensor, bias: Tensor | None, factor: Factor, fraction: int) -> Tensor:
    """Half up, float64, before the clamp."""
    if factor.bound <= FLOAT64_BOUND:
        ratio = factor.ratio * 2.0**fraction
        half = torch.full((), 0.5, dtype=torch.float64, device=acc.device)
        offset = half if bias is None else bias * ratio + half
        return torch.addcmul(offset, acc.double(), ratio).floor_()
    wide = acc.to(torch.int64) if bias is None else acc.to(torch.int64) + bias.to(torch.int64)
    shift = factor.shift - fraction
    half = torch.ones_like(shift) << (shift - 1)
    return ((wide * factor.multiplier + half) >> shift).double()


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: Tensor, lo: int, hi: int) -> Tensor:
        rounded = (total * FINISH_RATIO).add_(0.5).floor_()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((rounded >= lo) & (rounded <= hi))
        return rounded.clamp_(lo, hi).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return (gradients[0] * inside).double() * FINISH_RATIO, None, None


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, factor: Tensor | float) -> Tensor:
        ctx.factor, ctx.dtype = factor, source.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (gradients[0] * ctx.factor).to(ctx.dtype), None, None


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: float, lo: int, hi: int) -> Tensor:
        steps = (values.double() / scale).round_()
        if ctx.needs_input_grad[0]:
            ctx.scale = scale
            ctx.save_for_backward((steps >= lo) & (steps <= hi))
        return steps.clamp_(lo, hi).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside / ctx.scale, None, None, None


def quantize(values: Tensor, scale: float, lo: int, hi: int) -> Tensor:
    """Round half even of ``values / scale`` in float64, clamped: ``ir.arithmetic.quantize`` with a gradient."""
    return _Quantize.apply(values, scale, lo, hi)  # type: ignore[no-any-return, no-untyped-call]


def lookup(values: Tensor, table: Tensor, slopes: Tensor | None) -> Tensor:
    """A table of 256 entries [256] or [C, 256] at whole numbers; ``slopes`` [..., 256] are its gradient."""
    return _Lookup.apply(values, table, slopes)  # type: ignore[no-any-return, no-untyped-call]


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, table: Tensor, slopes: Tensor | None) -> Tensor:
        index = _table_index(values, table)
        if ctx.needs_input_grad[0] and slopes is not None:
            ctx.save_for_backward(slopes.reshape(-1)[index])
        return table.reshape(-1)[index]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


def _table_index(values: Tensor, table: Tensor) -> Tensor:
    index = values.to(torch.int32) + 128
    if table.ndim == 2:
        rows = torch.arange(table.shape[0], dtype=torch.int32, device=values.device) * 256
        index = index + rows.reshape(1, -1, *([1] * (values.ndim - 2)))
    return index
