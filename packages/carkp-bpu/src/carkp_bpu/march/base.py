"""What a march is: a table of facts about one generation of the BPU.

Every number is a ``Fact``: the value, where it was published, and whether it is an assumption of carkp's. The
vendor publishes operator limits and, for a few chips, measurements; the geometry of the MAC array, the size of
the on-chip memory and the bandwidth that one core gets are not public, so those are assumptions or fits, and say so.

The machine that these tables describe is carkp's own open model (``docs/bpu.md``), not a copy of the chip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
from attrs import field, frozen

T = TypeVar("T")


@frozen
class Fact(Generic[T]):
    """A value with its source. ``assumption`` marks what carkp chose because nothing is published."""

    value: T
    source: str
    assumption: bool = False

    def __str__(self) -> str:
        return f"{self.value}{' (assumed)' if self.assumption else ''}"


def published(source: str) -> Callable[[T], Fact[T]]:
    """A maker of facts from one source."""

    def fact(value: T) -> Fact[T]:
        return Fact(value, source)

    return fact


def assumed(reason: str) -> Callable[[T], Fact[T]]:
    """A maker of assumptions that share a reason."""

    def fact(value: T) -> Fact[T]:
        return Fact(value, reason, assumption=True)

    return fact


def reassumed(record: T, reason: str) -> T:
    """The same limits for another march, each marked as an assumption with this reason."""
    inst: Any = record
    facts = {f.name: Fact(getattr(inst, f.name).value, reason, True) for f in attrs.fields(type(inst))}
    changed: T = attrs.evolve(inst, **facts)
    return changed


@frozen
class Range:
    """An inclusive range of integers; ``hi`` None is open."""

    lo: int
    hi: int | None

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and value >= self.lo and (self.hi is None or value <= self.hi)

    def __str__(self) -> str:
        return f"at least {self.lo}" if self.hi is None else f"{self.lo}..{self.hi}"


@frozen
class TensorLimits:
    """Limits of any tensor."""

    ranks: Fact[Range]
    batch: Fact[int]
    #: Each of H, W, C.
    side: Fact[int]
    tensor_bytes: Fact[int]
    #: Number of inputs or outputs of the whole graph; None: not limited.
    graph_ends: Fact[int | None]
    #: Activation types of the engines.
    dtypes: Fact[tuple[str, ...]]


@frozen
class ConvLimits:
    """Limits of a convolution, a fully connected layer included."""

    kernel: Fact[Range]
    #: Channels in or out of a plain convolution (one group, no dilation).
    plain_channels: Fact[int]
    #: Channels in or out of each group of any other convolution.
    group_channels: Fact[int]
    #: Channels in or out of a fully connected layer: a 1x1 kernel on a 1x1 map.
    linear_channels: Fact[int]
    #: Blocks of four output channels of an int8 fully connected layer; None: not limited.
    linear_output_blocks: Fact[int | None]
    #: Output channels of a convolution that ends the graph.
    tail_channels: Fact[int]
    #: kernel_h * kernel_w * input channels of a group.
    kernel_volume: Fact[int]
    stride: Fact[Range]
    #: Strides of a convolution with a residual add fused into it.
    add_strides: Fact[tuple[int, ...]]
    dilation: Fact[Range]
    dilation_power_of_two: Fact[bool]
    #: A dilated convolution's stride: "divides" the dilation, or "one".
    dilated_stride: Fact[str]
    #: A dilated convolution's input H and W divide by the dilation, its output is int8.
    dilated_divides_input: Fact[bool]
    #: dilation_h <= dilation_w.
    dilation_h_at_most_w: Fact[bool]
    padding: Fact[Range]
    input_dtypes: Fact[tuple[str, ...]]
    output_dtypes: Fact[tuple[str, ...]]
    #: Fused activations besides ReLU.
    relu6: Fact[bool]


@frozen
class ConvTransposeLimits:
    """Limits of a transposed convolution."""

    kernel: Fact[Range]
    channels: Fact[int]
    #: kernel_h * kernel_w * input channels of a group.
    kernel_volume: Fact[int | None]
    strides: Fact[tuple[int, ...]]
    stride_h_at_most_w: Fact[bool]
    #: "half": at most (kernel - 1) / 2; "by_stride": at most kernel / stride, strictly under it for odd strides.
    padding_rule: Fact[str]
    output_padding: Fact[Range]
    kernel_at_least_stride: Fact[bool]
    dtypes: Fact[tuple[str, ...]]


@frozen
class PoolLimits:
    """Limits of max and average pooling."""

    max_kernel: Fact[Range]
    max_stride: Fact[Range]
    max_padding: Fact[Range]
    max_dilation: Fact[bool]
    avg_kernel: Fact[Range]
    avg_stride: Fact[Range]
    avg_padding: Fact[Range]
    #: H * W of an average over the whole map; None: not limited.
    global_avg_area: Fact[int | None]
    #: H and W of a maximum over the whole map.
    global_max_side: Fact[int]
    max_dtypes: Fact[tuple[str, ...]]
    avg_dtypes: Fact[tuple[str, ...]]


@frozen
class ElementwiseLimits:
    """Limits of add, mul, tables and rescales."""

    channels: Fact[int]
    #: Patterns of the smaller operand that may be broadcast: "per_channel" (1, C, 1, 1), "scalar", "any".
    add_broadcast: Fact[tuple[str, ...]]
    mul_broadcast: Fact[tuple[str, ...]]
    #: Constant operands of an add.
    add_constants: Fact[int]
    mul_constants: Fact[int]
    ranks: Fact[Range]
    #: Elements of a table's tensor: C * H * W; None: not limited.
    table_elements: Fact[int | None]
    #: Sigmoid has a limit of its own: the smaller of two aligned sizes.
    sigmoid_aligned_elements: Fact[int | None]
    #: Functions whose tables have no limit of size, and functions that run on the CPU.
    unlimited_functions: Fact[tuple[str, ...]]
    cpu_functions: Fact[tuple[str, ...]]
    dtypes: Fact[tuple[str, ...]]


@frozen
class ShapeLimits:
    """Limits of concat, resize, reshape, transpose and what else moves data."""

    concat_inputs: Fact[Range]
    concat_channels: Fact[int]
    #: Integer upsampling factors of a nearest resize are powers of two.
    nearest_power_of_two: Fact[bool]
    bilinear_power_of_two: Fact[bool]
    resize_factor: Fact[Range]
    #: Factor along H at most the factor along W.
    resize_h_at_most_w: Fact[bool]
    #: A reshape that moves data, or a transpose, runs on the BPU.
    reshape: Fact[bool]
    transpose: Fact[bool]
    resize_dtypes: Fact[tuple[str, ...]]
    move_dtypes: Fact[tuple[str, ...]]


@frozen
class Hardware:
    """The open machine model's sizes and rates for one core."""

    clock_hz: Fact[int]
    #: int8 products in a cycle when every lane is busy.
    macs_per_cycle: Fact[int]
    #: Divisor of that rate for int16 activations.
    int16_mac_divisor: Fact[int]
    #: One step of the MAC array: pixels along W, input channels, output channels.
    mac_pixels: Fact[int]
    mac_in_channels: Fact[int]
    mac_out_channels: Fact[int]
    sram_bytes: Fact[int]
    ddr_bytes_per_s: Fact[float]
    #: DDR moves whole bursts of these.
    ddr_burst_bytes: Fact[int]
    #: Layout of feature maps on chip: C and W are padded to these.
    channel_align: Fact[int]
    width_align: Fact[int]
    cores: Fact[int]


@frozen
class Costs:
    """What a cycle count cannot come from geometry: efficiencies and overheads, fitted to measurements."""

    #: Share of ``macs_per_cycle`` that a dense convolution with full lanes reaches.
    conv_efficiency: Fact[float]
    #: Products of a depthwise convolution in a cycle.
    depthwise_macs_per_cycle: Fact[float]
    #: Bytes of feature maps that an engine reads and writes in a cycle.
    feature_bytes_per_cycle: Fact[float]
    #: Before each layer: reading its descriptor, filling and draining the array.
    layer_cycles: Fact[int]
    #: Before each instruction of the convolution and vector engines, and of a DMA transfer.
    instruction_cycles: Fact[int]
    dma_cycles: Fact[int]
    #: Once a run: task submission and completion. Not part of the time between frames at saturation.
    launch_us: Fact[float]


@frozen
class March:
    """One march: operator limits, the machine model's sizes, and fitted costs.

    The properties are the plain numbers that compiler, simulator and performance model read.
    """

    name: str
    chips: str
    hardware: Hardware
    costs: Costs
    tensor: TensorLimits
    conv: ConvLimits
    conv_transpose: ConvTransposeLimits
    pool: PoolLimits
    elementwise: ElementwiseLimits
    shape: ShapeLimits
    #: A sentence about what is missing from the public documentation of this march.
    note: str = field(default="")

    @property
    def clock_hz(self) -> int:
        return self.hardware.clock_hz.value

    @property
    def macs_per_cycle(self) -> int:
        """int8 products in a cycle at full lanes."""
        return self.hardware.macs_per_cycle.value

    @property
    def mac_block(self) -> tuple[int, int, int]:
        """Pixels along W, input channels and output channels of one step; a tile that doesn't fill it wastes lanes."""
        hardware = self.hardware
        return hardware.mac_pixels.value, hardware.mac_in_channels.value, hardware.mac_out_channels.value

    @property
    def vector_bytes_per_cycle(self) -> float:
        """Bytes of feature maps that an engine reads and writes in a cycle."""
        return self.costs.feature_bytes_per_cycle.value

    @property
    def sram_bytes(self) -> int:
        return self.hardware.sram_bytes.value

    @property
    def ddr_bytes_per_s(self) -> float:
        return self.hardware.ddr_bytes_per_s.value

    @property
    def dma_bytes_per_cycle(self) -> float:
        """DDR bytes in a cycle: the bandwidth over the clock."""
        return self.ddr_bytes_per_s / self.clock_hz

    @property
    def channel_align(self) -> int:
        return self.hardware.channel_align.value

    @property
    def width_align(self) -> int:
        return self.hardware.width_align.value

    @property
    def layer_cycles(self) -> int:
        return self.costs.layer_cycles.value

    @property
    def instruction_cycles(self) -> int:
        return self.costs.instruction_cycles.value

    @property
    def dma_cycles(self) -> int:
        """Set-up of one DMA transfer."""
        return self.costs.dma_cycles.value

    @property
    def launch_us(self) -> float:
        return self.costs.launch_us.value

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Activation types."""
        return self.tensor.dtypes.value
