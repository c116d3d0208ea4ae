"""The gradient of a learned step: LSQ, on whole numbers.

S. K. Esser et al., "Learned Step Size Quantization", ICLR 2020. A tensor v is stored as ``q = clamp(round(u))`` with
``u = v / s``, and stands for ``y = s q``. With rounding passed straight through::

    dy/ds = q - u           inside the clamp
            q               beyond an end of the type
            0               beyond a fused activation's clamp, where y does not depend on s

The paper multiplies the sum over all elements by ``g = 1 / sqrt(N Qp)``, so that a step moves as fast, for its size, as
the weights do. N counts the features of one sample: with a loss that is a mean over the batch, neither the size of the
batch nor the number of processes that share it matters.

The loss is known by its gradient to q, which is s times that to y. So the gradient to s is ``g sum(dL/dq dy/ds) / s``.

A layer rounds in ``quant.rescale`` and ``quant.exact``. While ``learning`` a step, those note dy/ds for each element;
no operator needs to know. A layer that rounds by other means gets the part of its gradient that q alone tells: that
of elements at the ends of the type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from attrs import define
from torch import Tensor

from carkp_core.ir.arithmetic import INT_RANGE


@define(eq=False)
class LearnedStep:
    """A step that takes part in training, and the integer type that it counts in."""

    scale: Tensor
    dtype: str
    #: Elements of one sample of the whole tensor, N.
    features: int = 1
    #: Whether a rounding has noted its part.
    noted: bool = False

    @property
    def gradient_factor(self) -> float:
        """``g = 1 / sqrt(N Qp)``."""
        return 1.0 / math.sqrt(self.features * INT_RANGE[self.dtype][1])


_current: ContextVar[LearnedStep | None] = ContextVar("learned step", default=None)


@contextmanager
def learning(step: LearnedStep) -> Iterator[LearnedStep]:
    """What is rounded inside the block is rounded to whole ``step``s."""
    token = _current.set(step)
    try:
        yield step
    finally:
        _current.reset(token)


def noted(values: Tensor, unrounded: Callable[[], Tensor], lo: int, hi: int) -> Tensor:
    """The same whole numbers, with a gradient to the step that is being learned, if there is one.

    Parameters
    ----------
    values:
        ``q``, clamped to [lo, hi].
    unrounded:
        Gives ``u``, of the same shape; only asked while a step is learned.
    lo, hi:
        The clamp: the type's ends, or those of a fused activation inside them.
    """
    step = _current.get()
    if step is None or not torch.is_grad_enabled():
        return values
    with torch.no_grad():
        slope = step_slope(values, unrounded(), lo, hi, step.dtype)
    return with_slope(values, slope)


def with_slope(values: Tensor, slope: Tensor) -> Tensor:
    """The same whole numbers; ``slope`` is dy/ds for each of them."""
    step = _current.get()
    if step is None:
        return values
    step.noted = True
    return _Step.apply(values, slope, step.scale, step)  # type: ignore[no-any-return, no-untyped-call]


def step_slope(values: Tensor, unrounded: Tensor, lo: int, hi: int, dtype: str) -> Tensor:
    """dy/ds of each element."""
    lowest, highest = INT_RANGE[dtype]
    slope = values - unrounded
    slope.masked_fill_(unrounded < lo - 0.5, float(lo) if lo == lowest else 0.0)
    return slope.masked_fill_(unrounded > hi + 0.5, float(hi) if hi == highest else 0.0)


def at_the_ends(values: Tensor, dtype: str) -> Tensor:
    """dy/ds as far as whole numbers tell: themselves at the ends of the type, else 0."""
    lowest, highest = INT_RANGE[dtype]
    return values.detach() * ((values == lowest) | (values == highest))


def with_row_steps(values: Tensor, unrounded: Tensor, scales: Tensor, limit: int) -> Tensor:
    """The same whole numbers [O, count], between -limit and limit, with a gradient to a scale [O] for each row."""
    with torch.no_grad():
        slope = torch.where(unrounded.abs() > limit + 0.5, values, values - unrounded)
    return _RowSteps.apply(values, slope, scales, limit)  # type: ignore[no-any-return, no-untyped-call]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, slope: Tensor, scale: Tensor, step: LearnedStep) -> Tensor:
        ctx.step, ctx.like = step, scale.detach()
        ctx.save_for_backward(slope)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        total = torch.sum(gradients[0] * slope, dtype=torch.float64)
        scaled = total * ctx.step.gradient_factor / ctx.like.double()
        return gradients[0], None, scaled.to(ctx.like.dtype), None


class _RowSteps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, slope: Tensor, scales: Tensor, limit: int) -> Tensor:
        ctx.factor = 1.0 / math.sqrt(values.shape[1] * limit)
        ctx.save_for_backward(slope, scales)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        slope, scales = ctx.saved_tensors
        total = (gradients[0] * slope).sum(dim=1) * ctx.factor
        return gradients[0], None, torch.where(scales > 0, total / scales, 0.0), None
