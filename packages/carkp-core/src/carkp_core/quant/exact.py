"""Whole numbers on float tensors: their type, their quantizer, tables, and convolutions that stay exact.

A sum of products of whole numbers is exact in float32 below 2**24, in float64 below 2**53. ``quant.rescale`` has the
rest of the arithmetic.

**Gradients** pass straight through rounding. They are 0 where a value was clamped to its type's range; a table's are
the central differences of its entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from carkp_core.quant.step_gradient import noted

#: Largest sum that a float32 convolution of whole numbers carries exactly.
FLOAT32_BOUND = 1 << 24


@frozen(eq=False)
class QTensor:
    """Whole numbers in float32, the float32 value of one step, and the integer type that they stay inside."""

    values: Tensor
    scale: float
    dtype: str


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


def through(source: Tensor, value: Tensor, factor: Tensor | float) -> Tensor:
    """``value`` forward; backward, its gradient times ``factor`` to ``source``."""
    if not (torch.is_grad_enabled() and source.requires_grad):
        return value
    return _Through.apply(source, value, factor)  # type: ignore[no-any-return, no-untyped-call]


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
    steps: Tensor = _Quantize.apply(values, scale, lo, hi)  # type: ignore[no-untyped-call]
    return noted(steps, lambda: values.detach().float() / scale, lo, hi)


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
