"""Conv and Deconv instructions made ready for the vector kernels of ``machine_vectors``.

Taken for int8 maps where the machine has the vector instructions and the float64 rescale is proven exact
(``packing``); ``machine_kernels`` computes the rest. A ring of rows is cut where it wraps, a transposed convolution
falls into one plain convolution for each phase of its stride, as in ``lowering.conv``.

Legend: ``K`` products in a sum, ``I`` input channels, ``O`` output channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from carkp_bpu.hbm import isa
from carkp_bpu.simulator import machine_vectors as places
from carkp_bpu.simulator import packing
from carkp_bpu.simulator.lowering.base import Rescale
from carkp_bpu.simulator.lowering.fused_conv import address, shifted_tables, term_table
from carkp_bpu.simulator.machine_memory import Frames
from carkp_bpu.simulator.machine_operands import IntArray

#: Bytes of windows gathered at a time, and the rows that all heights of tiles divide.
_CHUNK_BYTES, _CHUNK_ROWS = 96 * 1024, 168
#: Maps with fewer pixels are gathered, so that many frames make one product.
_FEW_PIXELS = 12
_FRACTION_BITS = 15
#: A pixel's padding is gathered with it, under zero weights, when it is this small.
_PADDING_BYTES = 16
_ROOMS = (places.WINDOWS_ROOM, places.PIXELS_ROOM, places.RESIDUAL_ROOM)


@frozen(eq=False)
class Parameters:
    """What an instruction reads from the constants: weights int8 [kh, kw, I / groups, O] or transposed
    [kh, kw, I, O / groups]; bias, multiplier and shift int64 [O]."""

    weights: IntArray
    bias: IntArray
    multiplier: IntArray
    shift: IntArray

    def channels(self, begin: int, count: int) -> Parameters:
        """Those of some output channels; weights as they are."""
        own = slice(begin, begin + count)
        return Parameters(self.weights, self.bias[own], self.multiplier[own], self.shift[own])

    def rescale(self, fraction_bits: int) -> Rescale:
        """As kernels take it."""
        return Rescale.of(self.multiplier, self.shift, self.bias, fraction_bits)


@frozen(eq=False)
class Share:
    """A part of an instruction that is one product: its weights, windows and outputs."""

    #: int8 [taps, I, O] of the share.
    weights: IntArray
    parameters: Parameters
    input_channel: int
    output_channel: int
    kernel_hw: isa.Pair
    stride_hw: isa.Pair
    dilation_hw: isa.Pair
    #: Input position of the first output's first tap.
    corner: isa.Pair
    #: Rows and columns of outputs, position of the first one and the steps between.
    grid: isa.Pair
    first: isa.Pair
    step: isa.Pair = (1, 1)


@frozen(eq=False)
class VectorCall:
    """One call of a kernel, ready for any frames. ``kept`` are the arrays behind the addresses in ``row``."""

    row: IntArray
    term: IntArray
    kept: tuple[IntArray, ...]
    depthwise: bool = False
    #: Bytes of the rooms for windows, pixels and residual, for so many frames at most.
    rooms: tuple[int, ...] = field(default=())

    def run(self, frames: Frames) -> None:
        """Compute the tile for some frames."""
        count, step = frames.sram.shape[0], frames.sram.strides[0]
        scratch = frames.memories.scratch(sum(self.rooms))
        row, start = self.row.copy(), int(scratch.ctypes.data)
        sram = int(frames.sram.ctypes.data)
        if self.depthwise:
            taps = scratch[: self.rooms[0]].view(np.int64)
            places.depthwise_tile(sram, step, count, row, taps, start)
            return
        for place, size in zip(
            (places.WINDOWS_ROOM, places.PIXELS_ROOM, places.RESIDUAL_ROOM), self.rooms, strict=True
        ):
            row[place], start = start, start + size
        places.convolve_tile(sram, step, count, row, self.term)


class Packed:
    """Weights and tables as the kernels take them, made once for all tiles that share them."""

    def __init__(self) -> None:
        self._found: dict[Any, tuple[IntArray, IntArray] | None] = {}

    def matrix(self, weights: IntArray, parameters: Parameters, added: bool) -> tuple[IntArray, IntArray] | None:
        """int8 [K, O] packed, and its tables; None where the rescale is not proven exact."""

        def make() -> tuple[IntArray, IntArray] | None:
            rescale = parameters.rescale(_FRACTION_BITS if added else 0)
            limit = packing.TERM_LIMIT if added else packing.RESULT_LIMIT
            tables = shifted_tables(weights, rescale, limit)
            return None if tables is None else (packing.pack_matrix(weights), packing.pack_tables(tables))

        return self._once(("matrix", added), weights, parameters, make)

    def depthwise(self, weights: IntArray, parameters: Parameters) -> tuple[IntArray, IntArray] | None:
        """int8 [taps, O] packed, and its tables; None where the rescale is not proven exact."""

        def make() -> tuple[IntArray, IntArray] | None:
            tables = shifted_tables(weights, parameters.rescale(0), packing.RESULT_LIMIT)
            return None if tables is None else packing.pack_depthwise(weights, tables)

        return self._once("depthwise", weights, parameters, make)

    def _once(self, kind: Any, weights: IntArray, parameters: Parameters, make: Any) -> Any:
        numbers = (parameters.bias, parameters.multiplier, parameters.shift)
        key = (kind, weights.shape, weights.tobytes(), *(number.tobytes() for number in numbers))
        if key not in self._found:
            self._found[key] = make()
        return self._found[key]


def vector_calls(
    instruction: isa.Conv | isa.Deconv, parameters: Parameters, packed: Packed, frames: int
) -> list[VectorCall] | None:
    """The calls that compute an instruction for up to ``frames`` frames, or None where the vector kernels cannot."""
    residual = instruction.residual if isinstance(instruction, isa.Conv) else None
    maps = [instruction.input, instruction.output, *([residual.map] if residual else [])]
    if any(feature_map.dtype != 1 for feature_map in maps) or instruction.lo < -128 or instruction.hi > 127:
        return None
    term = term_table(_term(residual))
    if term is None:
        return None
    if isinstance(instruction, isa.Conv) and residual is None and _is_depthwise(instruction):
        return _depthwise_calls(instruction, parameters, packed)
    calls = []
    for share in _shares(instruction, parameters):
        for piece in _linear(share, instruction):
            call = _product(instruction, piece, residual, term, packed, frames)
            if call is None:
                return None
            calls.append(call)
    return calls


def _is_depthwise(conv: isa.Conv) -> bool:
    return conv.groups == conv.input.channels == conv.output.channels


def _term(residual: isa.Residual | None) -> tuple[int, int, int, int] | None:
    if residual is None:
        return None
    shift = residual.shift - _FRACTION_BITS
    return residual.multiplier, 1 << (shift - 1), shift, -1 if residual.negative else 1


def _depthwise_calls(conv: isa.Conv, parameters: Parameters, packed: Packed) -> list[VectorCall] | None:
    taps = conv.kernel_hw[0] * conv.kernel_hw[1]
    channels = conv.output.channels
    found = packed.depthwise(parameters.weights.reshape(taps, channels), parameters)
    if found is None:
        return None
    matrix, tables = found
    quads = -(-taps // 4)
    zeros = np.zeros(channels + packing.MARGIN, dtype=np.int8)
    row = _row(conv, next(_shares(evolve(conv, groups=1), parameters)))
    row[places.FOURS], row[places.CHANNELS] = quads, channels
    row[places.WEIGHTS], row[places.TABLES], row[places.ZEROS] = address(matrix), address(tables), address(zeros)
    return [VectorCall(row, np.zeros(3), (matrix, tables, zeros), depthwise=True, rooms=(64 * quads,))]


def _shares(instruction: isa.Conv | isa.Deconv, parameters: Parameters) -> Iterator[Share]:
    """One product for each group, and for each phase of a transposed convolution's stride."""
    depth = instruction.input.channels // instruction.groups
    filters = instruction.output.channels // instruction.groups
    spans = (instruction.rows, instruction.columns)
    for group in range(instruction.groups):
        own = parameters.channels(group * filters, filters)
        place = (group * depth, group * filters)
        if isinstance(instruction, isa.Conv):
            weights = parameters.weights[..., group * filters : (group + 1) * filters]
            corner = [
                span[0] * stride - pad
                for span, stride, pad in zip(spans, instruction.stride_hw, instruction.padding_tl, strict=True)
            ]
            yield Share(
                weights.reshape(-1, *weights.shape[2:]), own, *place, instruction.kernel_hw, instruction.stride_hw,
                instruction.dilation_hw, (corner[0], corner[1]), _sizes(spans), (spans[0][0], spans[1][0]),
            )  # fmt: skip
            continue
        weights = parameters.weights[:, :, group * depth : (group + 1) * depth]
        firsts = [
            range(begin, min(end, begin + s)) for (begin, end), s in zip(spans, instruction.stride_hw, strict=True)
        ]
        for y, x in itertools.product(*firsts):
            (rows, corner_y), (columns, corner_x) = _phase(instruction, 0, y), _phase(instruction, 1, x)
            height, width = (
                len(range(place, span[1], stride))
                for place, span, stride in zip((y, x), spans, instruction.stride_hw, strict=True)
            )
            chosen = weights[rows][:, columns]
            yield Share(
                chosen.reshape(-1, *chosen.shape[2:]), own, *place, (len(rows), len(columns)), (1, 1), (1, 1),
                (corner_y, corner_x), (height, width), (y, x), instruction.stride_hw,
            )  # fmt: skip


def _phase(deconv: isa.Deconv, axis: int, first: int) -> tuple[list[int], int]:
    """Kernel positions of the phase of output ``first``, last first, and the input position of that output's first."""
    stride, kernel = deconv.stride_hw[axis], deconv.kernel_hw[axis]
    whole, residue = divmod(first + deconv.padding_tl[axis], stride)
    taps = list(range(residue, kernel, stride))[::-1]
    return taps, whole - len(taps) + 1


def _sizes(spans: tuple[isa.Pair, isa.Pair]) -> isa.Pair:
    return spans[0][1] - spans[0][0], spans[1][1] - spans[1][0]


def _linear(share: Share, instruction: isa.Conv | isa.Deconv) -> Iterator[Share]:
    """A share cut where a ring that it walks over row by row wraps."""
    if share.step != (1, 1):
        yield share
        return
    walked = [(instruction.output, 0)]
    if isinstance(instruction, isa.Conv) and instruction.residual is not None:
        walked.append((instruction.residual.map, 0))
    if share.kernel_hw == (1, 1) and share.stride_hw == (1, 1):
        walked.append((instruction.input, share.corner[0] - share.first[0]))
    begin, end = share.first[0], share.first[0] + share.grid[0]
    cuts = {begin, end}
    for feature_map, moved in walked:
        held, origin = feature_map.ring_rows, feature_map.first_row - moved
        cuts |= {y for y in range(begin + 1, end) if (y - origin) % held == 0}
    for top, bottom in itertools.pairwise(sorted(cuts)):
        corner = (share.corner[0] + (top - begin) * share.stride_hw[0], share.corner[1])
        yield evolve(share, grid=(bottom - top, share.grid[1]), first=(top, share.first[1]), corner=corner)


def _product(
    instruction: isa.Conv | isa.Deconv,
    share: Share,
    residual: isa.Residual | None,
    term: IntArray,
    packed: Packed,
    frames: int,
) -> VectorCall | None:
    taps, depth, filters = share.weights.shape
    if not taps:
        return None
    pixels = share.grid[0] * share.grid[1]
    few = pixels < _FEW_PIXELS
    gathered = few or not _in_place(instruction.input, share.grid) or not _reads_pixels(instruction, share)
    scattered = few or share.step != (1, 1) or not _in_place(instruction.output, share.grid)
    if residual is not None:
        same = residual.map.pixel_pitch == instruction.output.pixel_pitch
        scattered = scattered or not same or not _in_place(residual.map, share.grid)
    pitch = instruction.input.pixel_pitch
    joined = instruction.groups == 1 and share.dilation_hw[1] == 1 and 0 <= pitch - depth < _PADDING_BYTES
    taken = pitch if joined and gathered else depth
    weights = share.weights
    if taken > depth:
        weights = np.zeros((taps, taken, filters), dtype=np.int8)
        weights[:, :depth] = share.weights
    found = packed.matrix(np.ascontiguousarray(weights).reshape(-1, filters), share.parameters, residual is not None)
    if found is None:
        return None
    matrix, tables = found
    fours = -(-taps * taken // 4)
    chunk = max(1, min(pixels * frames, _CHUNK_BYTES // (4 * fours)))
    chunk = chunk // _CHUNK_ROWS * _CHUNK_ROWS if chunk > _CHUNK_ROWS else chunk
    zeros = np.zeros(16, dtype=np.int8)
    row = _row(instruction, share)
    row[[places.TAP_BYTES, places.ROW_BYTES, places.FOURS]] = taken, 4 * fours, fours
    row[[places.WEIGHTS, places.TABLES, places.ZEROS]] = address(matrix), address(tables), address(zeros)
    row[[places.CHANNELS, places.CHUNK]] = filters, chunk
    row[[places.GATHERED, places.JOINED, places.SCATTERED, places.ADDED]] = (
        gathered, joined, scattered, residual is not None,
    )  # fmt: skip
    sizes = (chunk * 4 * fours if gathered else 0, *[chunk * filters if scattered else 0] * 2)
    rooms = tuple(-(-(size + packing.MARGIN) // 64) * 64 for size in sizes)
    return VectorCall(row, term, (matrix, tables, zeros), rooms=rooms)


def _in_place(feature_map: isa.FeatureMap, grid: isa.Pair) -> bool:
    """Whether rows of a tile follow each other without gaps (wraps of a ring apart)."""
    return grid[0] == 1 or feature_map.row_pitch == grid[1] * feature_map.pixel_pitch


def _reads_pixels(instruction: isa.Conv | isa.Deconv, share: Share) -> bool:
    """Whether a window is a pixel of the input, the next one its neighbour, and none lies on padding."""
    if share.kernel_hw != (1, 1) or share.stride_hw != (1, 1) or share.step != (1, 1):
        return False
    sizes = (instruction.input.height, instruction.input.width)
    return all(
        min(corner, size - corner - count) >= 0
        for corner, count, size in zip(share.corner, share.grid, sizes, strict=True)
    )


def _row(instruction: isa.Conv | isa.Deconv, share: Share) -> IntArray:
    """A kernel's row with maps, window, grid and clamp filled in."""
    row = np.zeros(places.ROW_LENGTH, dtype=np.int64)
    row[places.INPUT : places.INPUT + 6] = _map(instruction.input, share.input_channel)
    row[places.OUTPUT : places.OUTPUT + 6] = _map(instruction.output, share.output_channel)
    if isinstance(instruction, isa.Conv) and instruction.residual is not None:
        row[places.RESIDUAL : places.RESIDUAL + 6] = _map(instruction.residual.map, share.output_channel)
    row[places.HEIGHT], row[places.WIDTH] = instruction.input.height, instruction.input.width
    for place, pair in (
        (places.KERNEL, share.kernel_hw), (places.STRIDE, share.stride_hw), (places.DILATION, share.dilation_hw),
        (places.CORNER, share.corner), (places.GRID, share.grid), (places.FIRST, share.first),
        (places.STEP, share.step), (places.LO, (instruction.lo, instruction.hi)),
    ):  # fmt: skip
        row[place : place + 2] = pair
    return row


def _map(feature_map: isa.FeatureMap, channel: int) -> tuple[int, ...]:
    """A map's numbers in a row, from one of its channels on."""
    return (
        feature_map.address + channel * feature_map.dtype, feature_map.pixel_pitch, feature_map.row_pitch,
        feature_map.ring_rows, feature_map.first_row, feature_map.first_column,
    )  # fmt: skip
