"""Windows of an NHWC tensor laid out as rows of a matrix (im2col), and int16 rows split into bytes.

Legend: ``Y X`` output size, ``kh kw`` kernel, ``I`` input channels, ``G`` channels of one group.
"""

from __future__ import annotations

from typing import Any

from carkp_bpu.simulator.kernels.jit import kernel


@kernel
def gather_windows(
    x: Any,
    size: tuple[int, int, int],
    channels: tuple[int, int],
    window: tuple[int, int, int, int, int, int, int, int],
    output_hw: tuple[int, int],
    pixels: tuple[int, int],
    rows: Any,
) -> None:
    """Copy the windows of ``count`` output pixels from ``first`` on into ``rows`` (flat [count, kh * kw * G]).

    ``size`` is (H, W, I) of the flat input; ``channels`` (first, G) the group's; ``window`` is (kh, kw, stride y,
    stride x, dilation y, dilation x, top, left), the last two being the row and column of the first window's
    corner, negated. Positions outside the input become 0.
    """
    height, width, depth = size
    begin, group = channels
    kh, kw, stride_y, stride_x, step_y, step_x, top, left = window
    out_h, out_w = output_hw
    first, count = pixels
    target = 0
    for p in range(first, first + count):
        row = p // out_w
        image, y, x_out = row // out_h, row % out_h, p % out_w
        corner_x = x_out * stride_x - left
        for i in range(kh):
            in_y = y * stride_y - top + i * step_y
            if in_y < 0 or in_y >= height:
                cells = rows[target : target + kw * group]
                for c in range(cells.size):
                    cells[c] = 0
                target += kw * group
                continue
            line = (image * height + in_y) * width
            if step_x == 1 and group == depth and corner_x >= 0 and corner_x + kw <= width:
                source = x[(line + corner_x) * depth : (line + corner_x + kw) * depth]
                cells = rows[target : target + source.size]
                for c in range(source.size):
                    cells[c] = source[c]
                target += kw * group
                continue
            for j in range(kw):
                in_x = corner_x + j * step_x
                cells = rows[target : target + group]
                if in_x < 0 or in_x >= width:
                    for c in range(group):
                        cells[c] = 0
                else:
                    start = (line + in_x) * depth + begin
                    source = x[start : start + group]
                    for c in range(group):
                        cells[c] = source[c]
                target += group


@kernel
def split_bytes(x: Any, count: int, high: Any, low: Any) -> None:
    """int16 as ``256 * high + low + 128`` with int8 parts."""
    for i in range(count):
        high[i] = x[i] >> 8
        low[i] = (x[i] & 255) - 128


@kernel
def join_products(high: Any, low: Any, count: int, acc: Any) -> None:
    """``acc = 256 * high + low``; the constant of ``split_bytes`` is in the bias."""
    for i in range(count):
        acc[i] = 256 * high[i] + low[i]
