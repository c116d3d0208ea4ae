"""Pure data movement: every element of the result is one of the input, at a place affine in its index.

Slices, transposes and broadcasts along any axis are such movements. The input may be on chip (the vector engine
copies) or in DDR (the DMA engine gathers straight into the tile).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from attrs import frozen

from carkp_bpu.compiler.lowering.base import Lowering
from carkp_bpu.compiler.maps import Parameters, Region, Step, TensorMap, Tile, Window
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import Operand
from carkp_bpu.hbm.geometry import Span


@frozen
class Axis:
    """One dimension of the result: it walks dimension ``source`` of the input from ``start`` in steps of ``step``.

    A broadcast dimension has ``step`` 0.
    """

    source: int
    start: int = 0
    step: int = 1


@frozen
class InDdr:
    """An input that lies in DDR, dense."""

    tensor: int
    address: int


class Movement(Lowering):
    """``axes`` has one entry for each dimension of the result but the first."""

    gathers = True

    def __init__(self, axes: tuple[Axis, ...], inputs: tuple[TensorMap, ...], output: TensorMap) -> None:
        self.axes, self.inputs, self.output = axes, inputs, output

    @property
    def row_by_row(self) -> bool:
        """Whether rows stay rows, in order: slices of rows, and whatever happens inside a row."""
        if len(self.output.shape) != 4 or len(self.inputs[0].shape) != 4:
            return False
        channels, rows, columns = self.axes
        return rows.source == 2 and rows.step > 0 and 2 not in (channels.source, columns.source)

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """The whole rows that the tile comes from; where rows are not followed, nothing is loaded ahead."""
        if not self.row_by_row:
            return (None,)
        source, axis = self.inputs[0], self.axes[1]
        first, last = (axis.start + axis.step * row for row in (tile.region.rows[0], tile.region.rows[1] - 1))
        return (Region((first, last + 1), (0, source.width), (0, source.channels)),)

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """Copies from an input that is on chip: as a whole, or in a ring if rows stay rows."""
        window = inputs[0]
        strides = _axis_strides(window.map.shape, window.row_pitch, window.pixel_pitch, window.map.itemsize)
        for block in self._blocks(tile.region, output, window):
            place, steps = self._source(block, window.address, strides)
            if self.row_by_row:
                row = self.axes[1].start + self.axes[1].step * block.row
                place += window.place(row, 0, 0) - window.address - row * window.row_pitch
            counts = block.counts
            output_view = isa.View(
                block.place, output.map.itemsize, (output.row_pitch, output.pixel_pitch, 0, output.map.itemsize)
            )
            strides4 = _zero_where_single((steps[0], steps[1], 0, steps[2]), (counts[0], counts[1], 1, counts[2]))
            made = isa.Copy(
                isa.NO_WAITS,
                (counts[0], counts[1], 1, counts[2]),
                output_view,
                isa.View(place, window.map.itemsize, strides4),
            )
            yield Step(made, (Operand(window.tensor), output.operand(block.row)))

    def emit_gather(self, tile: Tile, source: InDdr, output: Window) -> Iterator[Step]:
        """Loads from an input in DDR."""
        shape, itemsize = self.inputs[0].shape, self.inputs[0].itemsize
        _, width, channels = isa.map_shape(shape)
        strides = _axis_strides(shape, width * channels * itemsize, channels * itemsize, itemsize)
        for block in self._blocks(tile.region, output):
            place, steps = self._source(block, source.address, strides)
            rows, columns, count = block.counts
            dense = steps[2] == itemsize or count == 1
            dims = (rows, columns, 1, count * itemsize) if dense else (rows, columns, count, itemsize)
            made = isa.Load(
                isa.NO_WAITS,
                place,
                block.place,
                dims,
                (steps[0], steps[1], 0 if dense else steps[2]),
                (output.row_pitch, output.pixel_pitch, 0 if dense else itemsize),
            )
            yield Step(made, (Operand(source.tensor), output.operand(block.row)))

    def _source(self, block: _Block, base: int, strides: tuple[int, ...]) -> tuple[int, tuple[int, int, int]]:
        """Address of a block's first element, and the input's strides along its rows, columns, channels."""
        place = base
        for axis, index in zip(self.axes, block.index, strict=True):
            place += strides[axis.source] * (axis.start + axis.step * index)

        def step(dimension: int) -> int:
            axis = self.axes[dimension]
            return strides[axis.source] * axis.step

        rank = len(self.axes)
        rows = step(rank - 2) if rank > 2 else 0
        columns = step(rank - 1) if rank > 1 else 0
        return place, (rows, columns, step(0) if rank else 0)

    def _blocks(self, region: Region, output: Window, source: Window | None = None) -> Iterator[_Block]:
        """The tile cut into boxes of the model's dimensions in which no ring wraps."""
        shape = self.output.shape[1:]
        inner = shape[-2] if len(shape) > 2 else 1
        outer_sizes = shape[1:-2]
        for begin, end in self._row_runs(region.rows, output, source):
            at = begin
            while at < end:
                stop = min(end, (at // inner + 1) * inner)
                outer = _unravel(at // inner, outer_sizes)
                index = [region.channels[0], *outer, at % inner, region.columns[0]][: len(shape)]
                if len(shape) == 2:
                    index = [region.channels[0], region.columns[0]]
                counts = (stop - at, region.counts[1], region.counts[2])
                yield _Block(tuple(index), counts, at, output.place(at, region.columns[0], region.channels[0]))
                at = stop

    def _row_runs(self, rows: Span, output: Window, source: Window | None) -> list[Span]:
        """Rows of the result cut where its ring wraps, or that of the rows they come from."""
        if source is None or not self.row_by_row:
            return output.runs(rows)
        start, step = self.axes[1].start, self.axes[1].step
        wraps = (begin for begin, _ in source.runs((start + step * rows[0], start + step * (rows[1] - 1) + 1)))
        cuts = {rows[1], *(begin for begin, _ in output.runs(rows)), *(-(-(wrap - start) // step) for wrap in wraps)}
        return list(itertools.pairwise(sorted(cuts)))


@frozen
class _Block:
    """A box of the result: index of its first element by dimension, counts, first row, address."""

    index: tuple[int, ...]
    counts: tuple[int, int, int]
    row: int
    place: int


def _axis_strides(shape: tuple[int, ...], row: int, pixel: int, itemsize: int) -> tuple[int, ...]:
    """Bytes between neighbours along each dimension of a stored tensor; dimension 0 has none."""
    rank = len(shape)
    strides = [0] * rank
    if rank > 1:
        strides[1] = itemsize
    if rank > 2:
        strides[-1] = pixel
    for dimension in range(2, rank - 1):
        strides[dimension] = row * math.prod(shape[dimension + 1 : -1])
    return tuple(strides)


def _unravel(index: int, sizes: tuple[int, ...]) -> list[int]:
    found: list[int] = []
    for size in reversed(sizes):
        found.insert(0, index % size)
        index //= size
    return found


def _zero_where_single(strides: isa.Four, counts: isa.Four) -> isa.Four:
    kept = [0 if count == 1 else stride for stride, count in zip(strides, counts, strict=True)]
    return kept[0], kept[1], kept[2], kept[3]


def slice_axes(rank: int, axis: int, start: int, step: int) -> tuple[Axis, ...]:
    """The movement of a slice along one axis."""
    return tuple(Axis(d, start, step) if d == axis else Axis(d) for d in range(1, rank))


def transpose_axes(permutation: Sequence[int]) -> tuple[Axis, ...]:
    """The movement of a transpose."""
    return tuple(Axis(source) for source in permutation[1:])


def expand_axes(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[Axis, ...]:
    """The movement of a broadcast between shapes of one rank."""
    pairs = itertools.islice(zip(source, target, strict=True), 1, None)
    return tuple(Axis(d, 0, 0 if have < want else 1) for d, (have, want) in enumerate(pairs, start=1))
