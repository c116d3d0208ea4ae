"""Resizing, NHWC, from sampling positions that were worked out beforehand.

Legend: ``sizes`` is (N, H, W, Y, X, C).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carkp_bpu.simulator.kernels.jit import kernel


@kernel
def resize_nearest(x: Any, sizes: Any, rows: Any, columns: Any, out: Any) -> None:
    """Output (y, x) is input (rows[y], columns[x])."""
    batch, height, width, out_h, out_w, channels = sizes
    for row in range(batch * out_h):
        line = (row // out_h * height + rows[row % out_h]) * width
        for x_out in range(out_w):
            start = (line + columns[x_out]) * channels
            source = x[start : start + channels]
            begin = (row * out_w + x_out) * channels
            target = out[begin : begin + channels]
            for c in range(channels):
                target[c] = source[c]


@kernel
def resize_bilinear(
    x: Any, sizes: Any, rows: Any, columns: Any, numerator_hw: tuple[int, int], rescale: tuple[int, int, int],
    clamp: tuple[int, int], out: Any,
) -> None:  # fmt: skip
    """Four neighbours, weighted in units of 1 / numerator, summed and rescaled by (multiplier, half, shift).

    ``rows`` is int64 [3, Y]: the upper and lower row and the lower one's weight; ``columns`` likewise [3, X].
    """
    batch, height, width, out_h, out_w, channels = sizes
    multiplier, half, shift = rescale
    lo, hi = clamp
    for row in range(batch * out_h):
        y = row % out_h
        upper = (row // out_h * height + rows[0, y]) * width
        lower = (row // out_h * height + rows[1, y]) * width
        below, above = rows[2, y], numerator_hw[0] - rows[2, y]
        for x_out in range(out_w):
            left, right = columns[0, x_out], columns[1, x_out]
            after, before = columns[2, x_out], numerator_hw[1] - columns[2, x_out]
            upper_left = x[(upper + left) * channels : (upper + left + 1) * channels]
            upper_right = x[(upper + right) * channels : (upper + right + 1) * channels]
            lower_left = x[(lower + left) * channels : (lower + left + 1) * channels]
            lower_right = x[(lower + right) * channels : (lower + right + 1) * channels]
            begin = (row * out_w + x_out) * channels
            target = out[begin : begin + channels]
            for c in range(channels):
                high = np.int64(upper_left[c]) * before + np.int64(upper_right[c]) * after
                low = np.int64(lower_left[c]) * before + np.int64(lower_right[c]) * after
                value = ((high * above + low * below) * multiplier + half) >> shift
                target[c] = min(max(value, lo), hi)
