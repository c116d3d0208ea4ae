"""Int8 convolutions between windows of modelled memory, on the vector kernels.

A call serves frames that lie ``frame_bytes`` apart from address ``sram`` on. ``row`` was worked out by
``machine_convolution`` when the program was prepared; its places are the constants below. Maps are given by where
their address, pitches and ring stand, so no tile needs memory of any other shape than the machine's.

A product reads its pixels in place, or gathers windows into a room of whole rows; it writes in place, or into a room
from which pixels are scattered. What lies in a room may come from many frames: small maps make one product together.
"""

from __future__ import annotations

from typing import Any

from carkp_bpu.simulator.kernels.fused import product_rows
from carkp_bpu.simulator.kernels.jit import inlined, kernel
from carkp_bpu.simulator.kernels.vectors import copy_16, copy_masked, depthwise_16, depthwise_32, depthwise_64

#: Places in a row. A map has six: address, pixel_pitch, row_pitch, ring_rows, first_row, first_column.
INPUT, OUTPUT, RESIDUAL = 0, 6, 12
#: Height and width of the input; kernel, stride and dilation; input position of the first output's first tap.
HEIGHT, WIDTH, KERNEL, STRIDE, DILATION, CORNER = 18, 19, 20, 22, 24, 26
#: Rows and columns of outputs, position of the first one and the steps between them.
GRID, FIRST, STEP = 28, 30, 32
#: Bytes taken of each tap's pixel; bytes between gathered windows; products of a sum in fours.
TAP_BYTES, ROW_BYTES, FOURS = 34, 35, 36
WEIGHTS, TABLES, CHANNELS, LO, HI = 37, 38, 39, 40, 41
#: Whether windows are gathered, taps that are neighbours are copied at once, pixels are scattered, a residual is added.
GATHERED, JOINED, SCATTERED, ADDED = 42, 43, 44, 45
#: Pixels of one product; addresses of rooms for windows, pixels and residual, and of 16 zeros.
CHUNK, WINDOWS_ROOM, PIXELS_ROOM, RESIDUAL_ROOM, ZEROS = 46, 47, 48, 49, 50
ROW_LENGTH = 51


@inlined
def _place(row: Any, feature_map: int, y: int, x: int) -> int:
    """Address of a pixel within its frame."""
    slot = (y - row[feature_map + 4]) % row[feature_map + 3]
    column = x - row[feature_map + 5]
    return row[feature_map] + slot * row[feature_map + 2] + column * row[feature_map + 1]  # type: ignore[no-any-return]


@inlined
def _copy(source: int, target: int, count: int, move: int) -> None:
    """Copy ``count`` bytes, and up to 15 more; ``move`` 0 repeats the source's first 16."""
    for i in range(0, count, 16):
        copy_16(source + i * move, target + i)


@inlined
def _copy_exactly(source: int, target: int, count: int) -> None:
    whole = count // 16 * 16
    for i in range(0, whole, 16):
        copy_16(source + i, target + i)
    if count > whole:
        copy_masked(source + whole, target + whole, (1 << (count - whole)) - 1)


@kernel
def _gather(sram: int, frame_bytes: int, row: Any, first: int, count: int) -> None:
    """The windows of ``count`` outputs from ``first`` on; what is written too far is overwritten by what follows."""
    kh, kw, taken, pitch = row[KERNEL], row[KERNEL + 1], row[TAP_BYTES], row[INPUT + 1]
    height, width, step_x = row[HEIGHT], row[WIDTH], row[DILATION + 1]
    grid_w = row[GRID + 1]
    for p in range(first, first + count):
        line, x_out = p // grid_w, p % grid_w
        frame = sram + line // row[GRID] * frame_bytes
        top = row[CORNER] + line % row[GRID] * row[STRIDE]
        left = row[CORNER + 1] + x_out * row[STRIDE + 1]
        target = row[WINDOWS_ROOM] + (p - first) * row[ROW_BYTES]
        for i in range(kh):
            y = top + i * row[DILATION]
            if y < 0 or y >= height:
                _copy(row[ZEROS], target, kw * taken, 0)
                target += kw * taken
                continue
            source = frame + _place(row, INPUT, y, left)
            if row[JOINED] != 0 and left >= 0 and left + kw <= width:
                _copy(source, target, kw * taken, 1)
                target += kw * taken
                continue
            for j in range(kw):
                x = left + j * step_x
                if x < 0 or x >= width:
                    _copy(row[ZEROS], target, taken, 0)
                else:
                    _copy(source + j * step_x * pitch, target, taken, 1)
                target += taken


@kernel
def _collect(sram: int, frame_bytes: int, row: Any, first: int, count: int) -> None:
    """The residual's pixels of ``count`` outputs."""
    grid_w, channels = row[GRID + 1], row[CHANNELS]
    for p in range(first, first + count):
        line = p // grid_w
        y, x = row[FIRST] + line % row[GRID] * row[STEP], row[FIRST + 1] + p % grid_w * row[STEP + 1]
        source = sram + line // row[GRID] * frame_bytes + _place(row, RESIDUAL, y, x)
        _copy(source, row[RESIDUAL_ROOM] + (p - first) * channels, channels, 1)


@kernel
def _scatter(sram: int, frame_bytes: int, row: Any, first: int, count: int) -> None:
    """``count`` pixels from their room to where they belong."""
    grid_w, channels = row[GRID + 1], row[CHANNELS]
    for p in range(first, first + count):
        line = p // grid_w
        y, x = row[FIRST] + line % row[GRID] * row[STEP], row[FIRST + 1] + p % grid_w * row[STEP + 1]
        target = sram + line // row[GRID] * frame_bytes + _place(row, OUTPUT, y, x)
        _copy_exactly(row[PIXELS_ROOM] + (p - first) * channels, target, channels)


@kernel
def convolve_tile(sram: int, frame_bytes: int, frames: int, row: Any, term: Any) -> None:
    """A tile of a convolution for ``frames`` frames; ``term`` is the residual's factor, offset and sign."""
    pixels, channels = row[GRID] * row[GRID + 1], row[CHANNELS]
    gap = (channels + 15) // 16 * 128
    # Where one side stays in place, a product stays within a frame.
    span = pixels * frames if row[GATHERED] != 0 and row[SCATTERED] != 0 else pixels
    for begin in range(0, pixels * frames, span):
        for first in range(begin, begin + span, row[CHUNK]):
            count = min(row[CHUNK], begin + span - first)
            frame = sram + begin // pixels * frame_bytes
            inside = first - begin
            x, x_step = row[WINDOWS_ROOM], row[ROW_BYTES]
            if row[GATHERED] != 0:
                _gather(sram, frame_bytes, row, first, count)
            else:
                x_step = row[INPUT + 1]
                x = frame + _place(row, INPUT, row[CORNER], row[CORNER + 1]) + inside * x_step
            other, out, out_step = 0, row[PIXELS_ROOM], channels
            if row[SCATTERED] != 0:
                if row[ADDED] != 0:
                    _collect(sram, frame_bytes, row, first, count)
                    other = row[RESIDUAL_ROOM]
            else:
                out_step = row[OUTPUT + 1]
                out = frame + _place(row, OUTPUT, row[FIRST], row[FIRST + 1]) + inside * out_step
                if row[ADDED] != 0:
                    other = frame + _place(row, RESIDUAL, row[FIRST], row[FIRST + 1]) + inside * out_step
            product_rows(
                x, x_step, count, row[FOURS], row[WEIGHTS], row[TABLES], gap, out, out_step, row[LO], row[HI],
                channels, other, term,
            )  # fmt: skip
            if row[SCATTERED] != 0:
                _scatter(sram, frame_bytes, row, first, count)


@kernel
def depthwise_tile(sram: int, frame_bytes: int, frames: int, row: Any, taps: Any, address: int) -> None:
    """A tile of a depthwise convolution; ``taps``, at ``address``, has room for twice as many numbers as taps."""
    kh, kw, channels, quads = row[KERNEL], row[KERNEL + 1], row[CHANNELS], row[FOURS]
    height, width, step_x, pitch = row[HEIGHT], row[WIDTH], row[DILATION + 1], row[INPUT + 1]
    lo, hi, move = row[LO], row[HI], row[STRIDE + 1] * row[INPUT + 1]
    whole = channels // 64 * 64
    for t in range(kh * kw, 4 * quads):
        taps[t], taps[4 * quads + t] = row[ZEROS], 0
    for line in range(frames * row[GRID]):
        frame, y_out = sram + line // row[GRID] * frame_bytes, line % row[GRID]
        top = row[CORNER] + y_out * row[STRIDE]
        out = frame + _place(row, OUTPUT, row[FIRST] + y_out, row[FIRST + 1])
        inside_before = False
        for x_out in range(row[GRID + 1]):
            left = row[CORNER + 1] + x_out * row[STRIDE + 1]
            inside = left >= 0 and left + (kw - 1) * step_x < width
            if inside and inside_before:
                for t in range(4 * quads):
                    taps[t] += taps[4 * quads + t]
            else:
                for i in range(kh):
                    y = top + i * row[DILATION]
                    source = frame + _place(row, INPUT, y, left)
                    for j in range(kw):
                        x = left + j * step_x
                        valid = y >= 0 and y < height and x >= 0 and x < width
                        taps[i * kw + j] = source + j * step_x * pitch if valid else row[ZEROS]
                        taps[4 * quads + i * kw + j] = move if valid else 0
            inside_before = inside
            w, t, c = row[WEIGHTS], row[TABLES], 0
            while c < whole:
                depthwise_64(address, quads, c, w, t, out + c, lo, hi, 0xFFFF)
                w, t, c = w + 256 * quads, t + 1024, c + 64
            if channels - c >= 32:
                depthwise_32(address, quads, c, w, t, out + c, lo, hi, 0xFFFF)
                w, t, c = w + 128 * quads, t + 512, c + 32
            while c < channels:
                mask = (1 << min(16, channels - c)) - 1
                depthwise_16(address, quads, c, w, t, out + c, lo, hi, mask)
                w, t, c = w + 64 * quads, t + 256, c + 16
            out += row[OUTPUT + 1]
