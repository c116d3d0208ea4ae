"""Pooling, NHWC.

Legend: as in ``depthwise``: ``sizes`` is (N, H, W, Y, X, C), ``window`` the eight numbers of a window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carkp_bpu.simulator.kernels.jit import kernel


@kernel
def max_pool(x: Any, sizes: Any, window: Any, lowest: int, out: Any) -> None:
    """The largest value of each window; ``lowest`` where a window holds padding only."""
    batch, height, width, out_h, out_w, channels = sizes
    kh, kw, stride_y, stride_x, step_y, step_x, top, left = window
    for row in range(batch * out_h):
        image, y = row // out_h, row % out_h
        for x_out in range(out_w):
            start = (row * out_w + x_out) * channels
            target = out[start : start + channels]
            for c in range(channels):
                target[c] = lowest
            for i in range(kh):
                in_y = y * stride_y - top + i * step_y
                if in_y < 0 or in_y >= height:
                    continue
                line = (image * height + in_y) * width
                for j in range(kw):
                    in_x = x_out * stride_x - left + j * step_x
                    if in_x < 0 or in_x >= width:
                        continue
                    source = x[(line + in_x) * channels : (line + in_x + 1) * channels]
                    for c in range(channels):
                        target[c] = max(target[c], source[c])


@kernel
def average_pool(x: Any, sizes: Any, window: Any, rescale: Any, clamp: tuple[int, int], acc: Any, out: Any) -> None:
    """The rescaled sum of each window.

    ``rescale`` is (multiplier, half, shift), int64 [Y * X] each, since the divisor depends on the position.
    ``acc`` has room for C sums.
    """
    batch, height, width, out_h, out_w, channels = sizes
    kh, kw, stride_y, stride_x, step_y, step_x, top, left = window
    multipliers, halves, shifts = rescale
    lo, hi = clamp
    for row in range(batch * out_h):
        image, y = row // out_h, row % out_h
        for x_out in range(out_w):
            for c in range(channels):
                acc[c] = 0
            for i in range(kh):
                in_y = y * stride_y - top + i * step_y
                if in_y < 0 or in_y >= height:
                    continue
                line = (image * height + in_y) * width
                for j in range(kw):
                    in_x = x_out * stride_x - left + j * step_x
                    if in_x < 0 or in_x >= width:
                        continue
                    source = x[(line + in_x) * channels : (line + in_x + 1) * channels]
                    for c in range(channels):
                        acc[c] += source[c]
            position = y * out_w + x_out
            multiplier, half, shift = multipliers[position], halves[position], shifts[position]
            start = (row * out_w + x_out) * channels
            target = out[start : start + channels]
            for c in range(channels):
                value = (np.int64(acc[c]) * multiplier + half) >> shift
                target[c] = min(max(value, lo), hi)
