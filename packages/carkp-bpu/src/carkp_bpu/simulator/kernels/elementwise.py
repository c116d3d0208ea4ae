"""Arithmetic between tensors of one layout: add, mul, rescale and tables, over flat arrays.

``term`` is (multiplier, half, shift, sign), with the 15 fractional bits of an add already taken from shift;
``half`` is the rounding, ``1 << (shift - 1)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carkp_bpu.simulator.kernels.jit import inlined, kernel
from carkp_bpu.simulator.kernels.requantize import FRACTION_BITS, FRACTION_HALF, TERM_LIMIT


@inlined
def _term(value: Any, term: Any) -> Any:
    scaled = (np.int64(value) * term[0] + term[1]) >> term[2]
    return term[3] * min(max(scaled, -TERM_LIMIT), TERM_LIMIT)


@kernel
def add_two(x: Any, term_x: Any, y: Any, term_y: Any, lo: int, hi: int, out: Any) -> None:
    """The sum of two tensors."""
    for i in range(out.size):
        total = _term(x[i], term_x) + _term(y[i], term_y)
        out[i] = min(max((total + FRACTION_HALF) >> FRACTION_BITS, lo), hi)


@kernel
def begin_sum(x: Any, term: Any, total: Any) -> None:
    """The first term of a longer sum, to int64 ``total``."""
    for i in range(total.size):
        total[i] = _term(x[i], term)


@kernel
def continue_sum(x: Any, term: Any, total: Any) -> None:
    """A further term."""
    for i in range(total.size):
        total[i] += _term(x[i], term)


@kernel
def finish_sum(total: Any, lo: int, hi: int, out: Any) -> None:
    """Drop the fractional bits and clamp."""
    for i in range(out.size):
        out[i] = min(max((total[i] + FRACTION_HALF) >> FRACTION_BITS, lo), hi)


@kernel
def multiply(x: Any, y: Any, rescale: tuple[int, int, int], lo: int, hi: int, out: Any) -> None:
    """The product of two tensors, rescaled by (multiplier, half, shift)."""
    multiplier, half, shift = rescale
    for i in range(out.size):
        value = (np.int64(x[i]) * np.int64(y[i]) * multiplier + half) >> shift
        out[i] = min(max(value, lo), hi)


@kernel
def rescale_runs(
    x: Any, run: int, rescale: tuple[int, int, int], lo: int, hi: int, place: tuple[int, int], out: Any
) -> None:
    """Rescale ``x`` in runs of ``run`` elements, set down in ``out`` at ``place`` (first, step between runs)."""
    multiplier, half, shift = rescale
    start, step = place
    for r in range(x.size // run):
        source = x[r * run : (r + 1) * run]
        target = out[start + r * step : start + r * step + run]
        for i in range(run):
            target[i] = min(max((np.int64(source[i]) * multiplier + half) >> shift, lo), hi)


@kernel
def look_up(x: Any, table: Any, out: Any) -> None:
    """int8 through a table of 256 entries."""
    for i in range(out.size):
        out[i] = table[np.int64(x[i]) + 128]


@kernel
def look_up_channels(x: Any, table: Any, out: Any) -> None:
    """int8 [P, C] (flat) through a flat table of 256 entries for each channel."""
    channels = table.size // 256
    for p in range(out.size // channels):
        for c in range(channels):
            out[p * channels + c] = table[c * 256 + np.int64(x[p * channels + c]) + 128]


@kernel
def interpolate(x: Any, table: Any, drop: tuple[int, int, int, int], out: Any) -> None:
    """int16 through an interpolated table of 513 entries (TOSA TABLE); ``drop`` is (half, shift, lo, hi)."""
    half, shift, lo, hi = drop
    for i in range(out.size):
        value = np.int64(x[i])
        index, fraction = (value >> 7) + 256, value & 127
        base = np.int64(table[index])
        result = (base << 7) + (np.int64(table[index + 1]) - base) * fraction
        out[i] = min(max((result + half) >> shift, lo), hi)
