"""RESCALE and the sum of rescaled terms on float tensors, exactly as ``ir.arithmetic``, with gradients.

Values are whole numbers held in floats. Three ways, chosen from proven bounds, in float64 wherever that is exact:

* ``|acc + bias| <= 2**28``: float64. A multiplier has 24 significant bits, so a product has at most 52 and is exact,
  and adding one half keeps it below 2**53. Where the shift is so large that the half does not line up with the last
  bit, the product is below 1/4 and the sum cannot be rounded across 1/2.
* ``|acc| <= 2**28`` under a larger bias, as degenerate channels have it: float64, with the bias taken apart in int64,
  ``bias m + half = whole 2**shift + rest``. Then ``floor((acc m + rest) / 2**shift) + whole`` is the result. In units
  of 2**(7 - shift), acc m is at most 2**52 and the rest below 2**(shift - 7), so the sum is exact for shifts to 59;
  from shift 9 on, whole is below 2**53. Channels whose sum is always 0 may have any shift.
* beyond, int64, as ``ir.arithmetic`` itself.

**Gradients** pass straight through each rounding: backward, a rescale is a product with the ratio. They are 0 where the
result was clamped: at the type's ends, and at a fused ReLU or ReLU6. The clamp of an add's single terms at 2**31 steps
passes them, since no sum that it changes lies inside the type but for terms that cancel. Steps that are learned get
theirs from ``quant.step_gradient``.

Work goes through the batch in slices of about 2**18 elements, so that float64 stays in the cache.

Legend: ``C`` channels on dimension 1; factors are [1, C, 1, 1], [1, 1, Y, X] or scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from carkp_core.ir.arithmetic import ADD_FRACTION_BITS, ADD_TERM_LIMIT
from carkp_core.quant.step_gradient import noted

#: Largest accumulator that a float64 product with a 24-bit multiplier carries exactly.
FLOAT64_BOUND = 1 << 28
#: Shifts with which float64 carries a sum whose bias was taken apart.
APART_SHIFTS = (9, 59)
#: Dropping the fractional bits of an add is a product with a power of two: exact in float64 for any sum.
FINISH_RATIO = 2.0**-ADD_FRACTION_BITS
#: Elements that are worked on at once.
SLICE = 1 << 18


@frozen(eq=False)
class Factor:
    """One rescale, per channel or for all: multiplier and shift, their ratio, and the accumulator's bounds."""

    multiplier: Tensor  # int64
    shift: Tensor  # int64
    ratio: Tensor  # float64, multiplier / 2**shift exactly
    #: Greatest |acc + bias|, and greatest |acc|.
    bound: int
    sum_bound: int
    #: Least and greatest shift of the channels whose sum is not always 0.
    shifts: tuple[int, int]

    @staticmethod
    def of(multiplier: Any, shift: Any, bound: int, like: Tensor, channels_dim: int | None = None) -> Factor:
        """Make a factor on the device of ``like``; with ``channels_dim`` its dimension 1 holds the channels."""
        return Factor.biased(multiplier, shift, (bound, bound), like, channels_dim)

    @staticmethod
    def biased(
        multiplier: Any,
        shift: Any,
        bounds: tuple[int, int],
        like: Tensor,
        channels_dim: int | None = None,
        silent: Sequence[int] = (),
    ) -> Factor:
        """A factor whose bounds are (with the bias, without); the sum of ``silent`` channels is always 0."""
        shifts = np.asarray(shift, dtype=np.int64)
        heard = np.delete(shifts, list(silent)) if len(silent) else shifts
        span = (int(heard.min()), int(heard.max())) if heard.size else APART_SHIFTS
        m, s = (torch.as_tensor(np.asarray(v, dtype=np.int64), device=like.device) for v in (multiplier, shifts))
        if channels_dim is not None:
            m, s = (v.reshape(1, -1, *([1] * (channels_dim - 2))) for v in (m, s))
        return Factor(m, s, torch.ldexp(m.double(), -s), int(bounds[0]), int(bounds[1]), span)


@frozen(eq=False)
class AddTerm:
    """A tensor that enters a sum: ``bias`` is float64, shaped as the factor."""

    values: Tensor
    factor: Factor
    negative: bool = False
    bias: Tensor | None = None


def rescaled(acc: Tensor, bias: Tensor | None, factor: Factor, lo: int, hi: int) -> Tensor:
    """RESCALE of ``acc + bias``, float32. ``bias`` is float64, shaped as the factor."""
    values: Tensor = _Rescaled.apply(acc, bias, factor, lo, hi)  # type: ignore[no-untyped-call]
    return noted(values, lambda: _unrounded((AddTerm(acc, factor, bias=bias),)), lo, hi)


def added(terms: Sequence[AddTerm], lo: int, hi: int) -> Tensor:
    """The sum of rescaled terms, clamped, float32. The tensors broadcast; each has the batch in front, or 1."""
    tensors = [tensor for term in terms for tensor in (term.values, term.bias)]
    values: Tensor = _Added.apply(terms, lo, hi, *tensors)  # type: ignore[no-untyped-call]
    return noted(values, lambda: _unrounded(terms), lo, hi)


def _unrounded(terms: Sequence[AddTerm]) -> Tensor:
    """The sum before it is rounded and clamped, float32: within about 1e-5 of a step inside the int8 range."""
    total: Any = 0.0
    for term in terms:
        ratio = term.factor.ratio.to(torch.float32)
        part = term.values.float() * ratio
        if term.bias is not None:
            part += (term.bias * term.factor.ratio).float()
        total = total - part if term.negative else total + part
    return total  # type: ignore[no-any-return]


class _Rescaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, acc: Tensor, bias: Tensor | None, factor: Factor, lo: int, hi: int) -> Tensor:
        rounding = _Rounding(factor, bias, 0)
        out = torch.empty_like(acc, dtype=torch.float32)
        step = _samples_at_once(out)
        buffer = torch.empty_like(acc[:step], dtype=torch.float64)
        inside = torch.empty_like(acc, dtype=torch.bool) if any(ctx.needs_input_grad[:2]) else None
        for start in range(0, len(acc), step):
            part = out[start : start + step]
            part.copy_(rounding(acc[start : start + step], buffer[: len(part)]))
            _clamp(part, lo, hi, None if inside is None else inside[start : start + step])
        if inside is not None:
            ctx.save_for_backward(inside)
            ctx.factor, ctx.bias_shape = factor, None if bias is None else bias.shape
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        passed = gradients[0] * inside
        passed *= ctx.factor.ratio.to(passed.dtype)
        bias = passed.sum_to_size(ctx.bias_shape).double() if ctx.needs_input_grad[1] else None
        return passed if ctx.needs_input_grad[0] else None, bias, None, None, None


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, terms: Sequence[AddTerm], lo: int, hi: int, *tensors: Tensor | None) -> Tensor:
        values = [value for value in tensors[::2] if value is not None]
        pairs = zip(terms, tensors[1::2], strict=True)
        roundings = [_Rounding(term.factor, bias, ADD_FRACTION_BITS) for term, bias in pairs]
        shape = np.broadcast_shapes(*(value.shape for value in values))
        # A tensor of the full shape hands on its memory layout.
        model = next((value for value in values if value.shape == shape), values[0].new_empty(shape))
        out = torch.empty_like(model, dtype=torch.float32)
        step = _samples_at_once(out)
        inside = torch.empty_like(out, dtype=torch.bool) if any(ctx.needs_input_grad) else None
        for start in range(0, len(out), step):
            total: Any = 0.0
            for term, rounding, value in zip(terms, roundings, values, strict=True):
                part = value[start : start + step] if len(value) > 1 else value
                rounded = rounding(part, torch.empty_like(part, dtype=torch.float64))
                rounded.clamp_(-ADD_TERM_LIMIT, ADD_TERM_LIMIT)
                total = total - rounded if term.negative else total + rounded
            part = out[start : start + step]
            part.copy_((total * FINISH_RATIO).add_(0.5).floor_())
            _clamp(part, lo, hi, None if inside is None else inside[start : start + step])
        if inside is not None:
            ctx.save_for_backward(inside)
            ctx.terms = [(term.factor.ratio, -1.0 if term.negative else 1.0) for term in terms]
            ctx.shapes = [None if tensor is None else tensor.shape for tensor in tensors]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        passed = gradients[0] * inside
        needed, shapes = ctx.needs_input_grad[3:], ctx.shapes
        found: list[Tensor | None] = []
        for index, (ratio, sign) in enumerate(ctx.terms):
            of_values, of_bias = needed[2 * index], needed[2 * index + 1]
            scaled = passed * (ratio * sign).to(passed.dtype) if of_values or of_bias else passed
            found.append(scaled.sum_to_size(shapes[2 * index]) if of_values else None)
            found.append(scaled.sum_to_size(shapes[2 * index + 1]).double() if of_bias else None)
        return None, None, None, *found


class _Rounding:
    """``floor((acc + bias) * multiplier / 2**(shift - fraction) + 1/2)``, float64, before the clamp."""

    def __init__(self, factor: Factor, bias: Tensor | None, fraction: int) -> None:
        self._factor, self._bias, self._shift = factor, bias, factor.shift - fraction
        self._ratio = factor.ratio * 2.0**fraction
        self._whole: Tensor | None = None
        least, greatest = (shift - fraction for shift in factor.shifts)
        apart = least >= APART_SHIFTS[0] and greatest <= APART_SHIFTS[1]
        self._float64 = factor.bound <= FLOAT64_BOUND or (factor.sum_bound <= FLOAT64_BOUND and apart)
        if self._float64 and bias is not None and factor.bound > FLOAT64_BOUND:
            self._take_apart(bias)
        elif self._float64:
            half = torch.full((), 0.5, dtype=torch.float64, device=self._ratio.device)
            self._offset = half if bias is None else bias * self._ratio + half

    def _take_apart(self, bias: Tensor) -> None:
        total = bias.to(torch.int64) * self._factor.multiplier + (torch.ones_like(self._shift) << (self._shift - 1))
        whole = total >> self._shift
        rest = torch.ldexp((total - (whole << self._shift)).double(), -self._shift)
        # Shifts beyond the range belong to channels whose sum is 0: there the rest, below 1, adds nothing.
        self._offset = torch.where(self._shift > APART_SHIFTS[1], torch.zeros_like(rest), rest)
        self._whole = whole.double()

    def __call__(self, acc: Tensor, buffer: Tensor) -> Tensor:
        """``acc`` rounded; the memory of ``buffer``, float64 and shaped as ``acc``, may hold the result."""
        if self._float64:
            buffer.copy_(acc)
            torch.addcmul(self._offset, buffer, self._ratio, out=buffer).floor_()
            return buffer if self._whole is None else buffer.add_(self._whole)
        wide = acc.to(torch.int64)
        if self._bias is not None:
            wide = wide + self._bias.to(torch.int64)
        half = torch.ones_like(self._shift) << (self._shift - 1)
        return ((wide * self._factor.multiplier + half) >> self._shift).double()


def _clamp(part: Tensor, lo: int, hi: int, inside: Tensor | None) -> None:
    """Clamp in place, and note where that changed nothing."""
    if inside is None:
        part.clamp_(lo, hi)
        return
    clamped = part.clamp(lo, hi)
    torch.eq(part, clamped, out=inside)
    part.copy_(clamped)


def _samples_at_once(values: Tensor) -> int:
    return max(1, SLICE // max(1, values[0].numel()))
