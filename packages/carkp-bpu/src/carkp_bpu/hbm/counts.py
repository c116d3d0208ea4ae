"""What an instruction costs by its nature: multiply-accumulates, elements, bytes moved. Times are ``perf``'s."""

from __future__ import annotations

import math

from carkp_bpu.hbm import isa


def macs(instruction: isa.Instruction) -> int:
    """Multiply-accumulates of one instruction; taps on padding count, as for a whole layer; 0 off the conv engine.

    A transposed convolution counts input positions times kernel: those positions whose kernel's top left corner falls
    into the tile when padding is cut off, so that a layer's tiles add up to the layer.
    """
    if isinstance(instruction, isa.Conv):
        kh, kw = instruction.kernel_hw
        per_output = kh * kw * (instruction.input.channels // instruction.groups)
        return output_elements(instruction) * per_output
    if isinstance(instruction, isa.Deconv):
        kh, kw = instruction.kernel_hw
        positions = _anchored(instruction, 0) * _anchored(instruction, 1)
        return positions * kh * kw * instruction.input.channels * (instruction.output.channels // instruction.groups)
    return 0


def output_elements(instruction: isa.Instruction) -> int:
    """Elements written by a compute instruction; 0 for DMA."""
    if isinstance(instruction, (isa.Conv, isa.Deconv, isa.Pool, isa.Resize)):
        return _span(instruction.rows) * _span(instruction.columns) * instruction.output.channels
    if isinstance(instruction, (isa.Load, isa.Store)):
        return 0
    return math.prod(instruction.dims)


def ddr_bytes(instruction: isa.Instruction) -> int:
    """Bytes that a DMA instruction moves; 0 for others."""
    return math.prod(instruction.dims) if isinstance(instruction, (isa.Load, isa.Store)) else 0


def dma_runs(instruction: isa.Instruction) -> int:
    """The number of contiguous DDR stretches of a DMA instruction (adjacent ones merged); 0 for others."""
    if not isinstance(instruction, (isa.Load, isa.Store)):
        return 0
    stretch, runs = instruction.dims[3], 1
    for count, stride in zip(reversed(instruction.dims[:3]), reversed(instruction.ddr_strides), strict=True):
        if count == 1 or (runs == 1 and stride == stretch):
            stretch *= count
        else:
            runs *= count
    return runs


def _span(bounds: isa.Pair) -> int:
    return bounds[1] - bounds[0]


def _anchored(deconv: isa.Deconv, axis: int) -> int:
    """Input positions along one axis whose anchor (position x stride - padding, clipped) lies in the tile."""
    begin, end = (deconv.rows, deconv.columns)[axis]
    size = (deconv.input.height, deconv.input.width)[axis]
    out_size = (deconv.output.height, deconv.output.width)[axis]
    stride, pad = deconv.stride_hw[axis], deconv.padding_tl[axis]

    def before(bound: int) -> int:
        """Positions whose clipped anchor is below ``bound``."""
        if bound <= 0:
            return 0
        return size if bound >= out_size else min(size, -(-(bound + pad) // stride))

    return before(end) - before(begin)
