"""Inner loops of the machine simulator on modelled memory. Serial numba; arithmetic as ``carkp_core.ir.arithmetic``.

Memory arrays are [N, elements] of the operand's type, one row for each frame; offsets and pitches are in elements.
``rows`` arrays hold the offset of each row (ring slots resolved). A row that lies on padding has offset -1. Inner loops
run over slices from 0 on: an index that might be negative, as far as numba can tell, would keep them from being wide.

Legend: ``N`` frames, ``Y X`` tile size, ``C`` channels.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numba
import numpy as np

_LIMIT = 1 << 46


@numba.njit(cache=True, nogil=True)
def rescale_to_map(acc, bias, multiplier, shift, lo, hi, memory, rows, start, pitch):
    """acc [N, Y, X, C] plus bias, rescaled and clamped, into a map."""
    frames, height, width, channels = acc.shape
    half = np.empty(channels, np.int64)
    for c in range(channels):
        half[c] = np.int64(1) << (shift[c] - 1)
    for n in range(frames):
        target = memory[n]
        for y in range(height):
            for x in range(width):
                base = rows[y] + start + x * pitch
                source, cells = acc[n, y, x], target[base : base + channels]
                for c in range(channels):
                    total = np.int64(source[c]) + bias[c]
                    value = (total * multiplier[c] + half[c]) >> shift[c]
                    cells[c] = min(max(value, lo), hi)


@numba.njit(cache=True, nogil=True)
def rescale_add_to_map(acc, bias, multiplier, shift, lo, hi, memory, rows, start, pitch, residual, term):
    """As ``rescale_to_map`` with ``residual`` [N, Y, X, C] added with 15 fractional bits; ``term`` is its
    multiplier, shift and sign."""
    frames, height, width, channels = acc.shape
    other_half = np.int64(1) << (term[1] - 16)
    for n in range(frames):
        target = memory[n]
        for y in range(height):
            for x in range(width):
                base = rows[y] + start + x * pitch
                source, added, cells = acc[n, y, x], residual[n, y, x], target[base : base + channels]
                for c in range(channels):
                    total = (np.int64(source[c]) + bias[c]) * multiplier[c]
                    own = (total + (np.int64(1) << (shift[c] - 16))) >> (shift[c] - 15)
                    other = (np.int64(added[c]) * term[0] + other_half) >> (term[1] - 15)
                    own = min(max(own, -_LIMIT), _LIMIT)
                    other = min(max(other, -_LIMIT), _LIMIT) * term[2]
                    value = (own + other + (1 << 14)) >> 15
                    cells[c] = min(max(value, lo), hi)


@numba.njit(cache=True, nogil=True)
def depthwise(memory, rows, start, pitch, columns, width_in, weight, acc):
    """Depthwise sums into acc [N, Y, X, C] int32. ``weight`` [kh, kw, C]; ``rows`` [Y, kh]; ``columns`` [X, kw] are
    column indices, outside [0, width_in) on padding."""
    frames, height, width, channels = acc.shape
    taps_h, taps_w = weight.shape[0], weight.shape[1]
    for n in range(frames):
        source = memory[n]
        for y in range(height):
            for x in range(width):
                total = acc[n, y, x]
                total[:] = 0
                for i in range(taps_h):
                    row = rows[y, i]
                    if row < 0:
                        continue
                    for j in range(taps_w):
                        column = columns[x, j]
                        if column < 0 or column >= width_in:
                            continue
                        base = row + start + column * pitch
                        cells, taps = source[base : base + channels], weight[i, j]
                        for c in range(channels):
                            total[c] += np.int32(cells[c]) * np.int32(taps[c])


@numba.njit(cache=True, nogil=True)
def scatter_columns(products, first_row, first_column, rows0, columns0, stride, padding, acc):
    """Sum a transposed convolution's products [N, h, w, kh, kw, C] into acc [N, Y, X, C].

    Input (i, j) of ``products`` is row ``first_row + i``; output (0, 0) of ``acc`` is (``rows0``, ``columns0``).
    """
    frames, height, width, channels = acc.shape
    _, in_h, in_w, kh, kw, _ = products.shape
    for n in range(frames):
        for y in range(height):
            place_y = rows0 + y + padding[0]
            top = max(first_row, -((kh - 1 - place_y) // stride[0]))
            bottom = min(first_row + in_h - 1, place_y // stride[0])
            for x in range(width):
                place_x = columns0 + x + padding[1]
                left = max(first_column, -((kw - 1 - place_x) // stride[1]))
                right = min(first_column + in_w - 1, place_x // stride[1])
                total = acc[n, y, x]
                total[:] = 0
                for i in range(top, bottom + 1):
                    for j in range(left, right + 1):
                        tap_y, tap_x = place_y - i * stride[0], place_x - j * stride[1]
                        part = products[n, i - first_row, j - first_column, tap_y, tap_x]
                        for c in range(channels):
                            total[c] += part[c]


@numba.njit(cache=True, nogil=True)
def window_maximum(memory, rows, start, pitch, columns, width_in, acc):
    """Raise acc [N, Y, X, C] to the maximum over windows; ``rows`` [Y, kh], ``columns`` [X, kw]."""
    frames, height, width, channels = acc.shape
    for n in range(frames):
        source = memory[n]
        for y in range(height):
            for x in range(width):
                total = acc[n, y, x]
                for i in range(rows.shape[1]):
                    row = rows[y, i]
                    if row < 0:
                        continue
                    for j in range(columns.shape[1]):
                        column = columns[x, j]
                        if column < 0 or column >= width_in:
                            continue
                        base = row + start + column * pitch
                        cells = source[base : base + channels]
                        for c in range(channels):
                            total[c] = max(total[c], np.int32(cells[c]))


@numba.njit(cache=True, nogil=True)
def window_sum(memory, rows, start, pitch, columns, width_in, acc):
    """Add windows to acc [N, Y, X, C]; ``rows`` [Y, kh], ``columns`` [X, kw]."""
    frames, height, width, channels = acc.shape
    for n in range(frames):
        source = memory[n]
        for y in range(height):
            for x in range(width):
                total = acc[n, y, x]
                for i in range(rows.shape[1]):
                    row = rows[y, i]
                    if row < 0:
                        continue
                    for j in range(columns.shape[1]):
                        column = columns[x, j]
                        if column < 0 or column >= width_in:
                            continue
                        base = row + start + column * pitch
                        cells = source[base : base + channels]
                        for c in range(channels):
                            total[c] += np.int32(cells[c])
