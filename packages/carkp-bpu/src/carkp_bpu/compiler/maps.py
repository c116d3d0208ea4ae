"""Tensors as the machine sees them: height x width x channels, and windows of them in SRAM."""

from __future__ import annotations

from attrs import frozen

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import ANY_ROW, Operand
from carkp_bpu.hbm.geometry import Span


@frozen
class TensorMap:
    """A tensor's size and type in the machine's layout; ``shape`` is the model's (1, C, d2, ..., dk)."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def height(self) -> int:
        """Rows: the product of all dimensions between channels and the last."""
        return isa.map_shape(self.shape)[0]

    @property
    def width(self) -> int:
        """The last dimension, 1 for (1, C)."""
        return isa.map_shape(self.shape)[1]

    @property
    def channels(self) -> int:
        """The second dimension."""
        return isa.map_shape(self.shape)[2]

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return isa.DTYPE_CODES[self.dtype]

    @property
    def dense_bytes(self) -> int:
        """Bytes in DDR."""
        height, width, channels = isa.map_shape(self.shape)
        return height * width * channels * self.itemsize


@frozen
class Region:
    """A box of a tensor, half open."""

    rows: Span
    columns: Span
    channels: Span

    @property
    def counts(self) -> tuple[int, int, int]:
        """Rows, columns, channels."""
        return length(self.rows), length(self.columns), length(self.channels)

    @property
    def empty(self) -> bool:
        """Nothing in it."""
        return min(self.counts) <= 0


def whole(tensor: TensorMap) -> Region:
    """All of a tensor."""
    return Region((0, tensor.height), (0, tensor.width), (0, tensor.channels))


def length(span: Span) -> int:
    """Number of positions."""
    return span[1] - span[0]


def meet(a: Span, b: Span) -> Span:
    """The common part of two ranges, empty when they do not touch."""
    begin = max(a[0], b[0])
    return begin, max(begin, min(a[1], b[1]))


def moved(span: Span, by: int) -> Span:
    """A range shifted."""
    return span[0] + by, span[1] + by


def pixel_pitch(channels: int, itemsize: int, channel_align: int) -> int:
    """Bytes from one pixel to the next in SRAM: channels rounded up to the march's alignment."""
    return -(-channels // channel_align) * channel_align * itemsize


@frozen
class MapBuffer:
    """SRAM for part of a tensor: slots of rows, columns and channels, in the machine's layout."""

    rows: int
    columns: int
    channels: int
    pixel_pitch: int

    @property
    def row_pitch(self) -> int:
        """Bytes from row to row."""
        return self.columns * self.pixel_pitch

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.row_pitch


@frozen
class Window:
    """Where part of a tensor lies in SRAM, as ``isa.FeatureMap``, and what the debug table says of it.

    ``channels`` are those held; ``address`` is that of the first one. ``rows_followed`` is False when the tensor is
    also used under a shape with other rows, so that rows have no single number.
    """

    tensor: int
    map: TensorMap
    address: int
    channels: Span
    pixel_pitch: int
    row_pitch: int
    ring_rows: int
    first_row: int = 0
    first_column: int = 0
    rows_followed: bool = True

    def feature_map(self, channels: Span) -> isa.FeatureMap:
        """The operand of a structured instruction over some of the channels."""
        return isa.FeatureMap(
            address=self.address + (channels[0] - self.channels[0]) * self.map.itemsize,
            dtype=self.map.itemsize,
            height=self.map.height,
            width=self.map.width,
            channels=max(1, length(channels)),
            pixel_pitch=self.pixel_pitch,
            row_pitch=self.row_pitch,
            ring_rows=self.ring_rows,
            first_row=self.first_row,
            first_column=self.first_column,
        )

    def place(self, row: int, column: int, channel: int) -> int:
        """The address of an element."""
        slot = (row - self.first_row) % self.ring_rows
        offset = slot * self.row_pitch + (column - self.first_column) * self.pixel_pitch
        return self.address + offset + (channel - self.channels[0]) * self.map.itemsize

    def operand(self, row: int | None = None) -> Operand:
        """The debug entry of an access; ``row`` is that of index 0 where the instruction does not say it."""
        return Operand(self.tensor, ANY_ROW if not self.rows_followed else row or 0)

    def runs(self, rows: Span) -> list[Span]:
        """The range cut where the ring wraps."""
        cuts = [rows[0]]
        step = self.ring_rows
        at = rows[0] + step - (rows[0] - self.first_row) % step
        while at < rows[1]:
            cuts.append(at)
            at += step
        return list(zip(cuts, [*cuts[1:], rows[1]], strict=True))


@frozen
class Tile:
    """A part of a layer's output that one step computes.

    ``part`` are the rows of the kernel that take part (pools whose window is too high for SRAM), None for all.
    """

    region: Region
    part: Span | None = None
    last_part: bool = True


@frozen
class Parameters:
    """A layer's parameter block in SRAM: addresses of its pieces, and its number in the debug table."""

    addresses: tuple[int, ...]
    tensor: int

    @property
    def operand(self) -> Operand:
        """The debug entry of reading it."""
        return Operand(self.tensor)


@frozen
class Step:
    """One emitted instruction with its debug entries, in the order of ``footprint.accesses``."""

    instruction: isa.Instruction
    operands: tuple[Operand, ...]
