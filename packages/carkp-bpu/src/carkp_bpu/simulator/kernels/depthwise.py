"""Depthwise convolution, NHWC, with its requantization or bare.

Legend: ``H W`` input size, ``Y X`` output size, ``C`` channels, ``kh kw`` kernel. ``sizes`` is (N, H, W, Y, X, C);
``window`` is (kh, kw, stride y, stride x, dilation y, dilation x, top, left); ``weight`` is int16 [kh * kw, C].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carkp_bpu.simulator.kernels.jit import inlined, kernel


@inlined
def _accumulate_pixel(x: Any, sizes: Any, window: Any, weight: Any, row: int, x_out: int, acc: Any) -> None:
    """The sums of one output pixel; ``row`` counts output rows over the batch."""
    _, height, width, out_h, _, channels = sizes
    kh, kw, stride_y, stride_x, step_y, step_x, top, left = window
    image, y = row // out_h, row % out_h
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
            taps = weight[i * kw + j]
            for c in range(channels):
                acc[c] += np.int32(source[c]) * np.int32(taps[c])


@kernel
def depthwise(
    x: Any, sizes: Any, weight: Any, window: Any, rescale: Any, clamp: tuple[int, int], acc: Any, out: Any
) -> None:
    """Convolve, rescale by ``rescale`` (multiplier, offset, shift per channel) and clamp; ``acc`` has room for C."""
    batch, out_h, out_w, channels = sizes[0], sizes[3], sizes[4], sizes[5]
    multiplier, offset, shift = rescale
    lo, hi = clamp
    for row in range(batch * out_h):
        for x_out in range(out_w):
            _accumulate_pixel(x, sizes, window, weight, row, x_out, acc)
            start = (row * out_w + x_out) * channels
            target = out[start : start + channels]
            for c in range(channels):
                value = (np.int64(acc[c]) * np.int64(multiplier[c]) + offset[c]) >> shift[c]
                target[c] = min(max(value, lo), hi)


@kernel
def depthwise_sums(x: Any, sizes: Any, weight: Any, window: Any, rows: tuple[int, int], acc: Any) -> None:
    """Only the sums, of output rows ``rows`` (first, count) over the batch, to flat ``acc``."""
    out_w, channels = sizes[4], sizes[5]
    first, count = rows
    for row in range(first, first + count):
        for x_out in range(out_w):
            start = ((row - first) * out_w + x_out) * channels
            _accumulate_pixel(x, sizes, window, weight, row, x_out, acc[start : start + channels])
