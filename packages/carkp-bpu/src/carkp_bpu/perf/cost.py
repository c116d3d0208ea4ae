"""Cycles of a piece of work on the machine model's engines. Layers, tiles and the fit all count with these.

Convolution engine
    A step multiplies ``mac_pixels`` pixels of a row, ``mac_in_channels`` input channels and ``mac_out_channels``
    filters; what doesn't fill a step is padded. ``padded products / (macs_per_cycle x conv_efficiency)``.
Depthwise
    One filter to a channel leaves the input-channel lanes idle, so it has a rate of its own:
    ``padded products / depthwise_macs_per_cycle``.
Feature maps
    Both engines read and write them through a port of ``vector_bytes_per_cycle``; a convolution takes the longer of
    its products and its feature maps, the vector engine has nothing else to do.
DMA
    A set-up, then whole bursts at the DDR's rate; reading and writing share that rate.

int16 activations divide the rate of products by ``int16_mac_divisor`` and double the bytes.
"""

from __future__ import annotations

import math

from attrs import frozen

from carkp_bpu.march.base import March


@frozen
class ConvWork:
    """Products of a convolution or of a tile of one: output positions x kernel x channels.

    ``filters`` and ``depth`` are the output and input channels of one group. A transposed convolution is the work
    of its input positions.
    """

    height: int
    width: int
    kernel_area: int
    depth: int
    filters: int
    groups: int = 1
    element_bytes: int = 1
    #: Bytes of input and output that it reads and writes.
    feature_bytes: int = 0

    @property
    def depthwise(self) -> bool:
        """One filter to a channel."""
        return self.groups > 1 and self.depth == 1 and self.filters == 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates, without padding."""
        return self.height * self.width * self.kernel_area * self.depth * self.filters * self.groups


def conv_cycles(work: ConvWork, march: March) -> int:
    """Cycles of the convolution engine."""
    return max(_product_cycles(work, march), vector_cycles(work.feature_bytes, march))


def _product_cycles(work: ConvWork, march: March) -> int:
    hardware, costs = march.hardware, march.costs
    pixels = work.height * _up(work.width, hardware.mac_pixels.value)
    slower = hardware.int16_mac_divisor.value if work.element_bytes > 1 else 1
    if work.depthwise:
        products = pixels * work.kernel_area * _up(work.groups, hardware.mac_in_channels.value)
        return math.ceil(products * slower / costs.depthwise_macs_per_cycle.value)
    depth = _up(work.depth, hardware.mac_in_channels.value)
    filters = _up(work.filters, hardware.mac_out_channels.value)
    products = pixels * work.kernel_area * depth * filters * work.groups
    return math.ceil(products * slower / (march.macs_per_cycle * costs.conv_efficiency.value))


def vector_cycles(feature_bytes: int, march: March) -> int:
    """Cycles for reading and writing feature maps of so many bytes together."""
    return math.ceil(feature_bytes / march.vector_bytes_per_cycle)


def dma_cycles(bytes_moved: int, runs: int, march: March) -> int:
    """Cycles during which a transfer of ``runs`` contiguous stretches holds the DDR, without its set-up."""
    burst = march.hardware.ddr_burst_bytes.value
    stretch = -(-bytes_moved // max(runs, 1))
    return math.ceil(runs * _up(stretch, burst) / march.dma_bytes_per_cycle)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
