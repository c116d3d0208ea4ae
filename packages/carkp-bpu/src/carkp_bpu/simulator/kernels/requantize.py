"""Accumulators to activations: bias, RESCALE and clamp, optionally with a residual tensor added between.

Legend: ``P`` pixels, ``C`` output channels. Accumulators are int32 [P, C], or float64 holding whole numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carkp_bpu.simulator.kernels.jit import kernel

#: Bound of an add's term and half of its last fractional bit (``ir.arithmetic``).
TERM_LIMIT = 1 << 46
FRACTION_BITS = 15
FRACTION_HALF = 1 << 14


@kernel
def requantize(acc: Any, count: int, multiplier: Any, offset: Any, shift: Any, lo: int, hi: int, out: Any) -> None:
    """``count`` values of ``acc`` (flat) to ``out`` (flat); the parameters repeat with their own length."""
    period = multiplier.size
    start = 0
    while start < count:
        length = min(period, count - start)
        source, target = acc[start : start + length], out[start : start + length]
        for i in range(length):
            value = (np.int64(source[i]) * np.int64(multiplier[i]) + offset[i]) >> shift[i]
            target[i] = min(max(value, lo), hi)
        start += length


@kernel
def requantize_rows(
    acc: Any, pixels: tuple[int, int], place: tuple[Any, int, int], rescale: Any, lo: int, hi: int, out: Any
) -> None:
    """As ``requantize``, to pixels that are not neighbours.

    ``pixels`` is (first, count) among all output pixels; ``place`` is (start of each row in ``out``, pixels in a
    row, elements between pixels); ``rescale`` is (multiplier, offset, shift), one of each per channel.
    """
    first, count = pixels
    row_starts, row_length, pixel_stride = place
    multiplier, offset, shift = rescale
    channels = multiplier.size
    for p in range(count):
        row = (first + p) // row_length
        start = row_starts[row] + (first + p - row * row_length) * pixel_stride
        source, target = acc[p * channels : (p + 1) * channels], out[start : start + channels]
        for c in range(channels):
            value = (np.int64(source[c]) * np.int64(multiplier[c]) + offset[c]) >> shift[c]
            target[c] = min(max(value, lo), hi)


@kernel
def requantize_add(acc: Any, count: int, rescale: Any, residual: Any, term: Any, lo: int, hi: int, out: Any) -> None:
    """``count`` values of ``acc`` as the first term of an add, ``residual`` as the second.

    ``rescale`` is (multiplier, offset, shift) with 15 already taken from shift; ``term`` is the residual's
    (multiplier, rounding, shift, sign), likewise.
    """
    multiplier, offset, shift = rescale
    term_multiplier, term_half, term_shift, sign = term
    period = multiplier.size
    start = 0
    while start < count:
        length = min(period, count - start)
        source, other = acc[start : start + length], residual[start : start + length]
        target = out[start : start + length]
        for i in range(length):
            value = (np.int64(source[i]) * np.int64(multiplier[i]) + offset[i]) >> shift[i]
            value = min(max(value, -TERM_LIMIT), TERM_LIMIT)
            extra = (np.int64(other[i]) * term_multiplier + term_half) >> term_shift
            value += sign * min(max(extra, -TERM_LIMIT), TERM_LIMIT)
            value = (value + FRACTION_HALF) >> FRACTION_BITS
            target[i] = min(max(value, lo), hi)
        start += length
