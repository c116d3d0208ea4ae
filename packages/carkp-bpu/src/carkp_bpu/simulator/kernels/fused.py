"""Whole int8 convolutions: windows, products, bias, RESCALE, residual and clamp (``vectors``), many in one call.

A convolution is a row of integers, addresses among them, that was worked out when the layer was bound to its buffers
(``lowering.fused_conv``), so that one call runs any number of layers without coming back to Python.
Legend: ``Y X`` output size, ``I`` input channels, ``C`` output channels.
"""

from __future__ import annotations

from typing import Any

from carkp_bpu.simulator.kernels.jit import inlined, kernel
from carkp_bpu.simulator.kernels.vectors import (
    copy_16,
    depthwise_16,
    depthwise_32,
    depthwise_64,
    get_address,
    put_address,
    sum_tile_1x1,
    sum_tile_1x2,
    sum_tile_1x3,
    sum_tile_1x4,
    sum_tile_6x4,
    sum_tile_8x3,
    sum_tile_12x2,
    sum_tile_14x1,
    tile_1x1,
    tile_1x2,
    tile_1x3,
    tile_1x4,
    tile_6x4,
    tile_8x3,
    tile_12x2,
    tile_14x1,
)

#: Integers in a row, and where it says that the convolution is a depthwise one.
ROW_LENGTH, DEPTHWISE = 40, 39


@kernel
def product_rows(
    x: int, x_step: int, rows: int, depth: int, weight: int, tables: int, gap: int, out: int, out_step: int,
    lo: int, hi: int, channels: int, other: int, term: Any,
) -> None:  # fmt: skip
    """Rows times weights, 64 channels and then as many rows at a time as registers hold their sums.

    ``gap`` lies between factors and offsets. The last rows overlap with those before, which are computed twice.
    """
    factor, offset, sign = term[0], term[1], term[2]
    for first in range(0, channels, 64):
        here = min(64, channels - first)
        vectors = (here + 15) // 16
        mask = (1 << (here - 16 * (vectors - 1))) - 1
        w = weight + first * 4 * depth
        t, o, r = tables + 8 * first, out + first, other + first
        height = 6 if vectors == 4 else 8 if vectors == 3 else 12 if vectors == 2 else 14
        step = height if rows >= height else 1
        row = 0
        while row < rows:
            at = min(row, rows - step)
            a, b, c = x + at * x_step, o + at * out_step, r + at * out_step
            if other == 0:
                if step == 1:
                    if vectors == 4:
                        tile_1x4(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                    elif vectors == 3:
                        tile_1x3(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                    elif vectors == 2:
                        tile_1x2(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                    else:
                        tile_1x1(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                elif vectors == 4:
                    tile_6x4(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                elif vectors == 3:
                    tile_8x3(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                elif vectors == 2:
                    tile_12x2(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                else:
                    tile_14x1(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
            elif step == 1:
                if vectors == 4:
                    sum_tile_1x4(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                elif vectors == 3:
                    sum_tile_1x3(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                elif vectors == 2:
                    sum_tile_1x2(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
                else:
                    sum_tile_1x1(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
            elif vectors == 4:
                sum_tile_6x4(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
            elif vectors == 3:
                sum_tile_8x3(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
            elif vectors == 2:
                sum_tile_12x2(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
            else:
                sum_tile_14x1(a, x_step, depth, w, t, gap, b, out_step, lo, hi, mask, c, factor, offset, sign)
            row += step


@inlined
def _copy(source: int, target: int, count: int, move: int) -> None:
    """Copy ``count`` bytes, and up to 15 more; ``move`` 0 repeats the source's first 16."""
    for i in range(0, count, 16):
        copy_16(source + i * move, target + i)


@kernel
def _gather(x: int, row: Any, first: int, count: int) -> None:
    """The windows of ``count`` output pixels from ``first`` on, row after row.

    What is written too far is overwritten by what comes next.
    """
    height, width, depth, begin, group = row[16], row[17], row[18], row[19], row[20]
    kh, kw, stride_y, stride_x, step_y, step_x, top, left = (
        row[21], row[22], row[23], row[24], row[25], row[26], row[27], row[28],
    )  # fmt: skip
    out_h, out_w, rows, rows_step, zeros = row[29], row[30], row[13], row[1], row[14]
    joined = step_x == 1 and group == depth
    for p in range(first, first + count):
        line_out, x_out = p // out_w, p % out_w
        image, y = line_out // out_h, line_out % out_h
        target = rows + (p - first) * rows_step
        corner = x_out * stride_x - left
        for i in range(kh):
            in_y = y * stride_y - top + i * step_y
            if in_y < 0 or in_y >= height:
                _copy(zeros, target, kw * group, 0)
                target += kw * group
                continue
            line = x + (image * height + in_y) * width * depth + begin
            if joined and corner >= 0 and corner + kw <= width:
                _copy(line + corner * depth, target, kw * group, 1)
                target += kw * group
                continue
            for j in range(kw):
                in_x = corner + j * step_x
                if in_x < 0 or in_x >= width:
                    _copy(zeros, target, group, 0)
                else:
                    _copy(line + in_x * depth, target, group, 1)
                target += group


@kernel
def _scatter(row: Any, first: int, count: int) -> None:
    """``count`` pixels of C channels, from the room at row[15] to pixels that are not neighbours; C = 16, 32, ..."""
    channels, out_h, out_w = row[6], row[29], row[30]
    full_h, full_w, first_y, first_x, step_y, step_x = row[31], row[32], row[33], row[34], row[35], row[36]
    for p in range(count):
        line_out, x_out = (first + p) // out_w, (first + p) % out_w
        line = line_out // out_h * full_h + first_y + line_out % out_h * step_y
        target = row[7] + (line * full_w + first_x + x_out * step_x) * row[8]
        _copy(row[15] + p * channels, target, channels, 1)


@kernel
def convolve(row: Any, term: Any) -> None:
    """A convolution with one weight matrix, chunk by chunk; ``term`` is the residual's factor, offset and sign."""
    x, pixels, chunk, channels = row[0], row[2], row[12], row[6]
    depth, weight, tables = row[3], row[4], row[5]
    gap = (channels + 15) // 16 * 128
    for first in range(0, pixels, chunk):
        count = min(chunk, pixels - first)
        rows = x + first * row[1]
        if row[13] != 0:
            _gather(x, row, first, count)
            rows = row[13]
        out, out_step = row[7] + first * row[8], row[8]
        if row[15] != 0:
            out, out_step = row[15], channels
        other = row[11] + first * row[8] if row[11] != 0 else 0
        lo, hi = row[9], row[10]
        product_rows(rows, row[1], count, depth, weight, tables, gap, out, out_step, lo, hi, channels, other, term)
        if row[15] != 0:
            _scatter(row, first, count)


@kernel
def convolve_depthwise(row: Any) -> None:
    """A depthwise convolution; at row[22] there is room for an address of each tap, then for what it moves by."""
    x, batch, height, width, out_h, out_w, channels = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
    kh, kw, stride_y, stride_x, step_y, step_x, top, left = (
        row[7], row[8], row[9], row[10], row[11], row[12], row[13], row[14],
    )  # fmt: skip
    quads, weight, tables, zeros, lo, hi, taps = row[15], row[16], row[17], row[18], row[20], row[21], row[22]
    moves = taps + 32 * quads
    out = row[19]
    whole = channels // 64 * 64
    for t in range(kh * kw, 4 * quads):
        put_address(taps, t, zeros)
        put_address(moves, t, 0)
    for line in range(batch * out_h):
        image, y = line // out_h, line % out_h
        inside_before = False
        for x_out in range(out_w):
            corner = x_out * stride_x - left
            inside = corner >= 0 and corner + (kw - 1) * step_x < width
            if inside and inside_before:
                for t in range(4 * quads):
                    put_address(taps, t, get_address(taps, t) + get_address(moves, t))
            else:
                for i in range(kh):
                    in_y = y * stride_y - top + i * step_y
                    for j in range(kw):
                        in_x = corner + j * step_x
                        valid = in_y >= 0 and in_y < height and in_x >= 0 and in_x < width
                        tap = x + ((image * height + in_y) * width + in_x) * channels if valid else zeros
                        put_address(taps, i * kw + j, tap)
                        put_address(moves, i * kw + j, stride_x * channels if valid else 0)
            inside_before = inside
            w, t, c = weight, tables, 0
            while c < whole:
                depthwise_64(taps, quads, c, w, t, out + c, lo, hi, 0xFFFF)
                w, t, c = w + 256 * quads, t + 1024, c + 64
            if channels - c >= 32:
                depthwise_32(taps, quads, c, w, t, out + c, lo, hi, 0xFFFF)
                w, t, c = w + 128 * quads, t + 512, c + 32
            while c < channels:
                mask = (1 << min(16, channels - c)) - 1
                depthwise_16(taps, quads, c, w, t, out + c, lo, hi, mask)
                w, t, c = w + 64 * quads, t + 256, c + 16
            out += channels


@kernel
def run_rows(rows: Any, terms: Any) -> None:
    """Convolutions one after another: int64 [n, ROW_LENGTH], and float64 [n, 3] for their residuals."""
    for i in range(rows.shape[0]):
        if rows[i, DEPTHWISE] != 0:
            convolve_depthwise(rows[i])
        else:
            convolve(rows[i], terms[i])
