"""Pools and resizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from carkp_bpu.compiler.lowering.base import Lowering, needed
from carkp_bpu.compiler.maps import Parameters, Region, Step, TensorMap, Tile, Window
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import Operand
from carkp_bpu.hbm.geometry import Sampling, Span, sampled_span, window_span
from carkp_bpu.hbm.geometry import Window as Sliding
from carkp_core.ir import operators as ops


class Pooling(Lowering):
    """``MaxPool`` and ``AvgPool``, in parts of the window's rows where it does not fit on chip."""

    def __init__(self, op: ops.MaxPool | ops.AvgPool, inputs: tuple[TensorMap, ...], output: TensorMap) -> None:
        self.op, self.inputs, self.output = op, inputs, output
        self.kernel_rows = op.kernel_hw[0]
        self._dilation = op.dilation_hw if isinstance(op, ops.MaxPool) else (1, 1)
        self._table, self._entries, self._counted = b"", 0, (0, 0, 0, 0)
        if isinstance(op, ops.AvgPool):
            self._counted = _counted(op, inputs[0])
            counts = _window_counts(op, self._counted, output)
            self._entries = len(counts)
            words = (counts.astype("<u4"), op.multiplier[counts].astype("<i4"), op.shift[counts].astype("u1"))
            self._table = b"".join(word.tobytes() for word in words)

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """Rows and columns under the windows."""
        source, op = self.inputs[0], self.op
        part = tile.part or (0, op.kernel_hw[0])
        windows = [
            Sliding(taps, op.stride_hw[axis], self._dilation[axis], op.padding_tlbr[axis])
            for axis, taps in enumerate((part, (0, op.kernel_hw[1])))
        ]
        rows = window_span(tile.region.rows, windows[0], source.height)
        columns = window_span(tile.region.columns, windows[1], source.width)
        return (needed(Region(rows, columns, tile.region.channels)),)

    def parameters(self, channels: Span) -> tuple[bytes, ...]:
        """The rescale of each count that occurs; none for a maximum."""
        return (self._table,) if self._table else ()

    def partial_bytes(self, tile: Tile) -> int:
        """int32 for each element."""
        rows, columns, channels = tile.region.counts
        return 4 * rows * columns * channels if tile.part else 0

    def feature_bytes(self, region: Region) -> int:
        """Every tap of every window, and the result."""
        taps = self.op.kernel_hw[0] * self.op.kernel_hw[1]
        return math.prod(region.counts) * (taps * self.inputs[0].itemsize + self.output.itemsize)

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """One instruction."""
        op, channels = self.op, tile.region.channels
        average = isinstance(op, ops.AvgPool)
        part = tile.part or (0, op.kernel_hw[0])
        first, last = part[0] == 0, tile.last_part
        made = isa.Pool(
            waits=isa.NO_WAITS,
            input=inputs[0].feature_map(channels),
            output=output.feature_map(channels),
            mode=int(average),
            rows=tile.region.rows,
            columns=tile.region.columns,
            kernel_hw=op.kernel_hw,
            stride_hw=op.stride_hw,
            dilation_hw=self._dilation,
            padding_tl=op.padding_tlbr[:2],
            kernel_rows=part,
            first=int(first),
            last=int(last),
            partial=partial,
            table=parameters.addresses[0] if average else 0,
            entries=self._entries,
            counted=self._counted,
            lo=op.lo if isinstance(op, ops.AvgPool) else 0,
            hi=op.hi if isinstance(op, ops.AvgPool) else 0,
        )
        operands = [inputs[0].operand()]
        if not first:
            operands.append(Operand(output.tensor))
        if average and last:
            operands.append(parameters.operand)
        operands.append(output.operand() if last else Operand(output.tensor))
        yield Step(made, tuple(operands))


class Resizing(Lowering):
    """``Resize``, nearest and bilinear."""

    def __init__(self, op: ops.Resize, inputs: tuple[TensorMap, ...], output: TensorMap) -> None:
        self.op, self.inputs, self.output = op, inputs, output

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """The sampled rows and columns."""
        op, source = self.op, self.inputs[0]
        samplings = [
            Sampling(op.numerator_hw[axis], op.denominator_hw[axis], op.offset_hw[axis], op.mode == "bilinear")
            for axis in (0, 1)
        ]
        rows = sampled_span(tile.region.rows, samplings[0], source.height)
        columns = sampled_span(tile.region.columns, samplings[1], source.width)
        return (Region(rows, columns, tile.region.channels),)

    def feature_bytes(self, region: Region) -> int:
        """The samples of each element, and the result."""
        samples = 4 if self.op.mode == "bilinear" else 1
        return math.prod(region.counts) * (samples * self.inputs[0].itemsize + self.output.itemsize)

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """One instruction."""
        op, channels = self.op, tile.region.channels
        made = isa.Resize(
            waits=isa.NO_WAITS,
            input=inputs[0].feature_map(channels),
            output=output.feature_map(channels),
            mode=int(op.mode == "bilinear"),
            rows=tile.region.rows,
            columns=tile.region.columns,
            numerator_hw=op.numerator_hw,
            denominator_hw=op.denominator_hw,
            offset_hw=op.offset_hw,
            multiplier=op.multiplier,
            shift=op.shift,
            lo=op.lo,
            hi=op.hi,
        )
        yield Step(made, (inputs[0].operand(), output.operand()))


def _counted(op: ops.AvgPool, source: TensorMap) -> tuple[int, int, int, int]:
    """Positions of the padded input that count: top, left, bottom, right."""
    top, left = op.padding_tlbr[:2]
    if op.count_include_pad:
        return 0, 0, op.counted_hw[0], op.counted_hw[1]
    return top, left, top + source.height, left + source.width


def _window_counts(op: ops.AvgPool, counted: tuple[int, int, int, int], output: TensorMap) -> np.ndarray:
    """The different counts of a window's positions, rising."""
    sides = []
    for axis, size in enumerate((output.height, output.width)):
        first = np.arange(size)[:, None] * op.stride_hw[axis]
        places = first + np.arange(op.kernel_hw[axis])
        sides.append(np.unique(((places >= counted[axis]) & (places < counted[axis + 2])).sum(axis=1)))
    return np.unique(sides[0][:, None] * sides[1])
