"""Operators without neighbourhood: add, mul, rescale, clamp, table, concat, pad."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from carkp_bpu.compiler.lowering.base import Lowering, needed
from carkp_bpu.compiler.maps import Parameters, Region, Step, TensorMap, Tile, Window, length, meet, moved
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.geometry import Span
from carkp_core.ir import operators as ops


class Elementwise(Lowering):
    """``Add``, ``Mul``, ``Rescale``, ``Clamp``; operands of size 1 along an axis are broadcast."""

    def __init__(
        self, op: ops.Add | ops.Mul | ops.Rescale | ops.Clamp, inputs: tuple[TensorMap, ...], output: TensorMap
    ) -> None:
        self.op, self.inputs, self.output = op, inputs, output

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """The tile itself, or index 0 along broadcast axes."""
        return tuple(_broadcast_region(tile.region, source, self.output) for source in self.inputs)

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """One instruction for each stretch of rows in which no ring wraps."""
        followed = [w for w in inputs if w.map.height == self.output.height]
        for rows in row_runs(tile.region.rows, (*followed, output)):
            region = Region(rows, tile.region.columns, tile.region.channels)
            views = [self._view(window, region) for window in inputs]
            made = self._instruction(region, views, plain_view(output, region))
            starts = [rows[0] if w.map.height == self.output.height else 0 for w in inputs]
            operands = [w.operand(row) for w, row in zip(inputs, starts, strict=True)]
            yield Step(made, (*operands, output.operand(rows[0])))

    def _view(self, window: Window, region: Region) -> isa.View:
        source = _broadcast_region(region, window.map, self.output)
        place = window.place(source.rows[0], source.columns[0], source.channels[0])
        pitches = (window.row_pitch, window.pixel_pitch, window.map.itemsize)
        strides = [
            0 if count < wanted else pitch
            for count, wanted, pitch in zip(source.counts, region.counts, pitches, strict=True)
        ]
        return isa.View(place, window.map.itemsize, (strides[0], strides[1], 0, strides[2]))

    def _instruction(self, region: Region, views: list[isa.View], output: isa.View) -> isa.Instruction:
        dims = dims_of(region)
        match self.op:
            case ops.Add():
                terms = tuple(
                    isa.Term(view, term.multiplier, term.shift, int(term.negative))
                    for view, term in zip(views, self.op.terms, strict=True)
                )
                return isa.Add(isa.NO_WAITS, dims, output, terms, self.op.lo, self.op.hi)
            case ops.Mul(multiplier=multiplier, shift=shift, lo=lo, hi=hi):
                return isa.Mul(isa.NO_WAITS, dims, output, views[0], views[1], multiplier, shift, lo, hi)
            case ops.Rescale(multiplier=multiplier, shift=shift, lo=lo, hi=hi):
                return isa.Rescale(isa.NO_WAITS, dims, output, views[0], multiplier, shift, lo, hi)
            case ops.Clamp(lo=lo, hi=hi):
                return isa.Clamp(isa.NO_WAITS, dims, output, views[0], lo, hi)


class LookUp(Lowering):
    """``Table``: one for all channels or one for each."""

    def __init__(self, op: ops.Table, inputs: tuple[TensorMap, ...], output: TensorMap) -> None:
        self.op, self.inputs, self.output = op, inputs, output
        self._entry = np.dtype("<i2") if op.table.dtype.itemsize > 1 else np.dtype("i1")

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """The tile itself."""
        return (tile.region,)

    def parameters(self, channels: Span) -> tuple[bytes, ...]:
        """The entries, of the slice's channels where each has its own."""
        table = self.op.table[slice(*channels)] if self.op.table.ndim == 2 else self.op.table
        return (np.ascontiguousarray(table.astype(self._entry)).tobytes(),)

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """One instruction for each stretch of rows in which no ring wraps."""
        entries = self.op.table.shape[-1]
        stride = entries * self._entry.itemsize if self.op.table.ndim == 2 else 0
        for rows in row_runs(tile.region.rows, (inputs[0], output)):
            region = Region(rows, tile.region.columns, tile.region.channels)
            views = plain_view(output, region), plain_view(inputs[0], region)
            table = parameters.addresses[0]
            made = isa.Table(isa.NO_WAITS, dims_of(region), *views, table, entries, self._entry.itemsize, stride)
            yield Step(made, (inputs[0].operand(rows[0]), parameters.operand, output.operand(rows[0])))


class Concatenation(Lowering):
    """``Concat`` along channels, rows or columns: every input rescaled into its place."""

    def __init__(self, op: ops.Concat, inputs: tuple[TensorMap, ...], output: TensorMap, axis: int) -> None:
        """``axis`` 0, 1, 2 is rows, columns, channels of the map."""
        self.op, self.inputs, self.output, self._axis = op, inputs, output, axis
        sizes = [(m.height, m.width, m.channels)[axis] for m in inputs]
        self._starts = [sum(sizes[:index]) for index in range(len(sizes))]

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """The part of each input that falls into the tile."""
        return tuple(self._source(tile.region, index) for index in range(len(self.inputs)))

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """A rescale for each input that falls into the tile."""
        op = self.op
        for index, (window, term) in enumerate(zip(inputs, op.terms, strict=True)):
            source = self._source(tile.region, index)
            if source is None:
                continue
            target = self._shifted(source, self._starts[index])
            by = target.rows[0] - source.rows[0]
            for rows in row_runs(target.rows, (output,), (window, -by)):
                into = Region(rows, target.columns, target.channels)
                read = Region(moved(rows, -by), source.columns, source.channels)
                views = plain_view(output, into), plain_view(window, read)
                made = isa.Rescale(isa.NO_WAITS, dims_of(into), *views, term.multiplier, term.shift, op.lo, op.hi)
                yield Step(made, (window.operand(read.rows[0]), output.operand(rows[0])))

    def feature_bytes(self, region: Region) -> int:
        """Each element once in, once out."""
        return 2 * math.prod(region.counts) * self.output.itemsize

    def _source(self, region: Region, index: int) -> Region | None:
        size = (self.inputs[index].height, self.inputs[index].width, self.inputs[index].channels)[self._axis]
        spans = [region.rows, region.columns, region.channels]
        spans[self._axis] = meet(moved(spans[self._axis], -self._starts[index]), (0, size))
        return needed(Region(*spans))

    def _shifted(self, region: Region, by: int) -> Region:
        spans = [region.rows, region.columns, region.channels]
        spans[self._axis] = moved(spans[self._axis], by)
        return Region(*spans)


class Padding(Lowering):
    """``Pad``: fill the tile, copy what lies inside."""

    def __init__(self, op: ops.Pad, inputs: tuple[TensorMap, ...], output: TensorMap) -> None:
        self.op, self.inputs, self.output = op, inputs, output

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """The tile shifted, cut to the input."""
        top, left, _, _ = self.op.padding_tlbr
        rows = meet(moved(tile.region.rows, -top), (0, self.inputs[0].height))
        columns = meet(moved(tile.region.columns, -left), (0, self.inputs[0].width))
        return (needed(Region(rows, columns, tile.region.channels)),)

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """A fill, then a copy."""
        for rows in row_runs(tile.region.rows, (output,)):
            region = Region(rows, tile.region.columns, tile.region.channels)
            made = isa.Fill(isa.NO_WAITS, dims_of(region), plain_view(output, region), self.op.value)
            yield Step(made, (output.operand(rows[0]),))
        source = self.regions(tile)[0]
        if source is None:
            return
        top, left, _, _ = self.op.padding_tlbr
        for rows in row_runs(moved(source.rows, top), (output,), (inputs[0], -top)):
            into = Region(rows, moved(source.columns, left), source.channels)
            read = Region(moved(rows, -top), source.columns, source.channels)
            made_copy = isa.Copy(isa.NO_WAITS, dims_of(into), plain_view(output, into), plain_view(inputs[0], read))
            yield Step(made_copy, (inputs[0].operand(read.rows[0]), output.operand(rows[0])))


def dims_of(region: Region) -> isa.Four:
    """Loop counts of a vector instruction over a region."""
    rows, columns, channels = region.counts
    return rows, columns, 1, channels


def plain_view(window: Window, region: Region) -> isa.View:
    """A region in a window, as an operand of a vector instruction; its rows do not wrap."""
    place = window.place(region.rows[0], region.columns[0], region.channels[0])
    return isa.View(place, window.map.itemsize, (window.row_pitch, window.pixel_pitch, 0, window.map.itemsize))


def row_runs(rows: Span, windows: Sequence[Window], shifted: tuple[Window, int] | None = None) -> list[Span]:
    """``rows`` cut so that no window's ring wraps inside a piece; ``shifted`` reads rows + an offset."""
    cuts = {rows[0], rows[1]}
    for window in windows:
        cuts.update(begin for begin, _ in window.runs(rows))
    if shifted is not None:
        window, by = shifted
        cuts.update(begin - by for begin, _ in window.runs(moved(rows, by)))
    ordered = sorted(cuts)
    return [span for span in itertools.pairwise(ordered) if length(span)]


def _broadcast_region(region: Region, source: TensorMap, output: TensorMap) -> Region:
    sizes = ((source.height, output.height), (source.width, output.width), (source.channels, output.channels))
    spans = [
        (0, 1) if have == 1 and want > 1 else span
        for span, (have, want) in zip((region.rows, region.columns, region.channels), sizes, strict=True)
    ]
    return Region(*spans)
