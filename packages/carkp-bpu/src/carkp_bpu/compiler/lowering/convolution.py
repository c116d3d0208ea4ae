"""Convolutions and transposed convolutions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_bpu.compiler.lowering.base import Lowering, needed
from carkp_bpu.compiler.maps import Parameters, Region, Step, TensorMap, Tile, Window, length
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import Operand
from carkp_bpu.hbm.geometry import Span, transposed_span, window_span
from carkp_bpu.hbm.geometry import Window as Sliding
from carkp_bpu.march import March
from carkp_bpu.perf.cost import ConvWork, conv_cycles
from carkp_core.errors import BackendError
from carkp_core.ir import operators as ops

IntArray = npt.NDArray[Any]


class Convolution(Lowering):
    """``Conv2d``; grouped ones are cut between groups, and depthwise ones between channels."""

    engine = "conv"

    def __init__(self, op: ops.Conv2d, inputs: tuple[TensorMap, ...], output: TensorMap) -> None:
        self.op, self.inputs, self.output = op, inputs, output
        self.channel_step = op.weight.shape[0] // op.groups if op.groups > 1 else 1
        _check_accumulator(op.weight.reshape(op.weight.shape[0], -1), op.bias, inputs[0].dtype)

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """Rows and columns under the windows, all channels or those of the tile's groups; the residual's tile."""
        source = self.inputs[0]
        rows = window_span(tile.region.rows, self._window(0), source.height)
        columns = window_span(tile.region.columns, self._window(1), source.width)
        main = needed(Region(rows, columns, self._in_channels(tile.region.channels)))
        return (main,) if self.op.residual is None else (main, tile.region)

    def parameters(self, channels: Span) -> tuple[bytes, ...]:
        """Weights [kh][kw][I / groups][O], then bias, multiplier, shift."""
        own = slice(*channels)
        weights = np.ascontiguousarray(self.op.weight[own].transpose(2, 3, 1, 0))
        return weights.tobytes(), _rescale_bytes(self.op, own)

    def parameter_sizes(self, channels: Span) -> tuple[int, ...]:
        """One byte a weight, nine for each output channel."""
        count = length(channels)
        return count * int(math.prod(self.op.weight.shape[1:])), 9 * count

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """One instruction."""
        op, channels = self.op, tile.region.channels
        residual: isa.Residual | None = None
        others: tuple[Operand, ...] = ()
        if op.residual is not None:
            term = op.residual
            other = inputs[1].feature_map(channels)
            residual = isa.Residual(other, term.multiplier, term.shift, int(term.negative))
            others = (inputs[1].operand(),)
        groups = (channels[1] - channels[0]) // self.channel_step if op.groups > 1 else 1
        made = isa.Conv(
            waits=isa.NO_WAITS,
            input=inputs[0].feature_map(self._in_channels(channels)),
            output=output.feature_map(channels),
            residual=residual,
            weights=parameters.addresses[0],
            params=parameters.addresses[1],
            rows=tile.region.rows,
            columns=tile.region.columns,
            kernel_hw=op.weight.shape[2:],
            stride_hw=op.stride_hw,
            dilation_hw=op.dilation_hw,
            padding_tl=op.padding_tlbr[:2],
            groups=groups,
            lo=op.lo,
            hi=op.hi,
        )
        yield Step(made, (inputs[0].operand(), *others, parameters.operand, parameters.operand, output.operand()))

    def cycles(self, region: Region, march: March) -> int:
        """The longer of products and feature maps."""
        rows, columns, channels = region.counts
        groups = channels // self.channel_step if self.op.groups > 1 else 1
        work = ConvWork(
            height=rows,
            width=columns,
            kernel_area=int(math.prod(self.op.weight.shape[2:])),
            depth=int(self.op.weight.shape[1]),
            filters=channels // groups,
            groups=groups,
            element_bytes=self.inputs[0].itemsize,
            feature_bytes=self.feature_bytes(region),
        )
        return conv_cycles(work, march)

    def feature_bytes(self, region: Region) -> int:
        """The input under the windows, the residual, the result."""
        reads = zip(self.regions(Tile(region)), self.inputs, strict=True)
        read = sum(math.prod(part.counts) * source.itemsize for part, source in reads if part is not None)
        return read + math.prod(region.counts) * self.output.itemsize

    def _window(self, axis: int) -> Sliding:
        op = self.op
        taps = (0, int(op.weight.shape[2 + axis]))
        return Sliding(taps, op.stride_hw[axis], op.dilation_hw[axis], op.padding_tlbr[axis])

    def _in_channels(self, channels: Span) -> Span:
        if self.op.groups == 1:
            return 0, self.inputs[0].channels
        step, per_group = self.channel_step, self.op.weight.shape[1]
        return channels[0] // step * per_group, channels[1] // step * per_group


class TransposedConvolution(Lowering):
    """``ConvTranspose2d``; grouped ones are cut between groups."""

    engine = "conv"

    def __init__(self, op: ops.ConvTranspose2d, inputs: tuple[TensorMap, ...], output: TensorMap) -> None:
        self.op, self.inputs, self.output = op, inputs, output
        self.channel_step = op.weight.shape[1] if op.groups > 1 else 1
        per_group = op.weight.shape[0] // op.groups
        filters = op.weight.reshape(op.groups, per_group, op.weight.shape[1], -1).transpose(0, 2, 1, 3)
        _check_accumulator(filters.reshape(output.channels, -1), op.bias, inputs[0].dtype)

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """Rows and columns whose kernels reach the tile."""
        spans = []
        for axis, (span, size) in enumerate(
            ((tile.region.rows, self.inputs[0].height), (tile.region.columns, self.inputs[0].width))
        ):
            kernel, stride = self.op.weight.shape[2 + axis], self.op.stride_hw[axis]
            spans.append(transposed_span(span, kernel, stride, self.op.padding_tlbr[axis], size))
        return (needed(Region(spans[0], spans[1], self._in_channels(tile.region.channels))),)

    def parameters(self, channels: Span) -> tuple[bytes, ...]:
        """Weights [kh][kw][I][O / groups], then bias, multiplier, shift."""
        weight = self.op.weight
        weight = weight[:, slice(*channels)] if self.op.groups == 1 else weight[slice(*self._in_channels(channels))]
        return np.ascontiguousarray(weight.transpose(2, 3, 0, 1)).tobytes(), _rescale_bytes(self.op, slice(*channels))

    def parameter_sizes(self, channels: Span) -> tuple[int, ...]:
        """One byte a weight, nine for each output channel."""
        count, per_group = length(channels), self.op.weight.shape[0] // self.op.groups
        return count * per_group * int(math.prod(self.op.weight.shape[2:])), 9 * count

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """One instruction."""
        op, channels = self.op, tile.region.channels
        made = isa.Deconv(
            waits=isa.NO_WAITS,
            input=inputs[0].feature_map(self._in_channels(channels)),
            output=output.feature_map(channels),
            weights=parameters.addresses[0],
            params=parameters.addresses[1],
            rows=tile.region.rows,
            columns=tile.region.columns,
            kernel_hw=op.weight.shape[2:],
            stride_hw=op.stride_hw,
            padding_tl=op.padding_tlbr[:2],
            groups=(channels[1] - channels[0]) // self.channel_step if op.groups > 1 else 1,
            lo=op.lo,
            hi=op.hi,
        )
        yield Step(made, (inputs[0].operand(), parameters.operand, parameters.operand, output.operand()))

    def cycles(self, region: Region, march: March) -> int:
        """The longer of products, those of its stride's phase for each output, and feature maps."""
        rows, columns, channels = region.counts
        height, width = -(-rows // self.op.stride_hw[0]), -(-columns // self.op.stride_hw[1])
        groups = channels // self.channel_step if self.op.groups > 1 else 1
        source, depth = self.inputs[0], self.op.weight.shape[0] // self.op.groups
        read = height * width * depth * groups * source.itemsize
        work = ConvWork(
            height=height,
            width=width,
            kernel_area=int(math.prod(self.op.weight.shape[2:])),
            depth=depth,
            filters=channels // groups,
            groups=groups,
            element_bytes=source.itemsize,
            feature_bytes=read + math.prod(region.counts) * self.output.itemsize,
        )
        return conv_cycles(work, march)

    def _in_channels(self, channels: Span) -> Span:
        if self.op.groups == 1:
            return 0, self.inputs[0].channels
        per_group = self.op.weight.shape[0] // self.op.groups
        return channels[0] // self.channel_step * per_group, channels[1] // self.channel_step * per_group


def _rescale_bytes(op: ops.Conv2d | ops.ConvTranspose2d, channels: slice) -> bytes:
    """Bias int32, multiplier int32, shift uint8 of some output channels."""
    words = (op.bias[channels].astype("<i4"), op.multiplier[channels].astype("<i4"), op.shift[channels].astype("u1"))
    return b"".join(word.tobytes() for word in words)


def _check_accumulator(filters: IntArray, bias: IntArray, dtype: str) -> None:
    """The machine accumulates in int32: no sum of products may leave it, in whatever order."""
    largest = 1 << (15 if dtype == "int16" else 7)
    bound = np.abs(filters.astype(np.int64)).sum(axis=1) * largest + np.abs(bias.astype(np.int64))
    if bound.max(initial=0) >= 1 << 31:
        channel = int(bound.argmax())
        raise BackendError(
            f"the sum of output channel {channel} can leave int32",
            seen=f"up to {int(bound[channel])}",
            allowed=f"under {1 << 31}",
            remedy="quantize the layer with smaller weights",
        )
