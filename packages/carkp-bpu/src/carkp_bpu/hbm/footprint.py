"""The bytes that an instruction reads and writes: what hazards, guards and traffic are computed from.

Accesses come in a fixed order: operands in the order of the instruction's fields, the result last. Debug tables
list one entry for each access in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.geometry import Sampling, Span, Window, sampled_span, transposed_span, window_span


@frozen
class Box:
    """Strided bytes: counts and strides of the outer dimensions; the last count is contiguous bytes.

    ``first_row`` is the tensor's row that index 0 of the first dimension holds, where the instruction says it.
    """

    address: int
    counts: tuple[int, ...]
    strides: tuple[int, ...]
    first_row: int | None = None

    @property
    def end(self) -> int:
        """One past the last byte."""
        reach = sum((n - 1) * stride for n, stride in zip(self.counts, self.strides, strict=True))
        return self.address + reach + 1


@frozen
class Access:
    """One operand's bytes."""

    role: str
    space: Literal["sram", "ddr"]
    write: bool
    boxes: tuple[Box, ...]


def accesses(instruction: isa.Instruction) -> tuple[Access, ...]:
    """Every operand of an instruction, the result last.

    Raises
    ------
    ValueError
        When the operands contradict each other: a range outside its tensor, more rows than the ring holds.
    """
    return tuple(_accesses(instruction))


def _accesses(instruction: isa.Instruction) -> Iterator[Access]:
    match instruction:
        case isa.Load():
            yield Access("source", "ddr", False, _strided(instruction.ddr, instruction.dims, instruction.ddr_strides))
            yield Access("output", "sram", True, _strided(instruction.sram, instruction.dims, instruction.sram_strides))
        case isa.Store():
            yield Access(
                "source", "sram", False, _strided(instruction.sram, instruction.dims, instruction.sram_strides)
            )
            yield Access("output", "ddr", True, _strided(instruction.ddr, instruction.dims, instruction.ddr_strides))
        case isa.Conv() | isa.Deconv():
            yield from _convolution(instruction)
        case isa.Pool():
            yield from _pool(instruction)
        case isa.Resize():
            rows, columns = input_spans(instruction)
            yield _read("input", _map_boxes(instruction.input, rows, columns))
            yield _output(instruction)
        case _:
            yield from _vector(instruction)


def input_spans(instruction: isa.Conv | isa.Deconv | isa.Pool | isa.Resize) -> tuple[Span, Span]:
    """Rows and columns of the input map that a structured instruction reads."""
    source = instruction.input
    spans = []
    for axis, (span, size) in enumerate(
        ((instruction.rows, source.height), (instruction.columns, source.width)),
    ):
        match instruction:
            case isa.Conv():
                spans.append(window_span(span, conv_window(instruction, axis), size))
            case isa.Pool():
                spans.append(window_span(span, pool_window(instruction, axis), size))
            case isa.Deconv():
                kernel, stride = instruction.kernel_hw[axis], instruction.stride_hw[axis]
                spans.append(transposed_span(span, kernel, stride, instruction.padding_tl[axis], size))
            case isa.Resize():
                spans.append(sampled_span(span, resize_sampling(instruction, axis), size))
    return spans[0], spans[1]


def conv_window(conv: isa.Conv, axis: int) -> Window:
    """The sliding window of a convolution along an axis."""
    return Window((0, conv.kernel_hw[axis]), conv.stride_hw[axis], conv.dilation_hw[axis], conv.padding_tl[axis])


def pool_window(pool: isa.Pool, axis: int) -> Window:
    """The sliding window of a pool along an axis: of its rows, only those of this part."""
    taps = pool.kernel_rows if axis == 0 else (0, pool.kernel_hw[1])
    return Window(taps, pool.stride_hw[axis], pool.dilation_hw[axis], pool.padding_tl[axis])


def resize_sampling(resize: isa.Resize, axis: int) -> Sampling:
    """Where a resize samples along an axis."""
    return Sampling(resize.numerator_hw[axis], resize.denominator_hw[axis], resize.offset_hw[axis], bool(resize.mode))


def _convolution(conv: isa.Conv | isa.Deconv) -> Iterator[Access]:
    rows, columns = input_spans(conv)
    yield _read("input", _map_boxes(conv.input, rows, columns))
    if isinstance(conv, isa.Conv) and conv.residual is not None:
        yield _read("residual", _map_boxes(conv.residual.map, conv.rows, conv.columns))
    filters, channels = conv.output.channels, conv.input.channels
    if channels % conv.groups or filters % conv.groups:
        raise ValueError(f"{channels} and {filters} channels do not divide into {conv.groups} groups")
    kernel = conv.kernel_hw[0] * conv.kernel_hw[1]
    yield _read("weights", _block(conv.weights, kernel * channels * filters // conv.groups))
    yield _read("params", _block(conv.params, 9 * filters))
    yield _output(conv)


def _pool(pool: isa.Pool) -> Iterator[Access]:
    rows, columns = input_spans(pool)
    area = (pool.rows[1] - pool.rows[0]) * (pool.columns[1] - pool.columns[0])
    partial = _block(pool.partial, 4 * area * pool.output.channels)
    yield _read("input", _map_boxes(pool.input, rows, columns))
    if not pool.first:
        yield _read("partial", partial)
    if pool.mode and pool.last:
        yield _read("table", _block(pool.table, 9 * pool.entries))
    yield _output(pool) if pool.last else Access("partial", "sram", True, partial)


def _vector(
    instruction: isa.Add | isa.Mul | isa.Rescale | isa.Clamp | isa.Table | isa.Copy | isa.Fill,
) -> Iterator[Access]:
    dims = instruction.dims
    match instruction:
        case isa.Add():
            for index, term in enumerate(instruction.terms):
                yield _read(f"term{index}", _view_boxes(term.view, dims))
        case isa.Mul():
            yield _read("left", _view_boxes(instruction.left, dims))
            yield _read("right", _view_boxes(instruction.right, dims))
        case isa.Rescale() | isa.Clamp() | isa.Table() | isa.Copy():
            yield _read("input", _view_boxes(instruction.input, dims))
    if isinstance(instruction, isa.Table):
        size = instruction.entries * instruction.entry_dtype
        tables = dims[3] if instruction.channel_stride else 1
        yield _read("table", (Box(instruction.table, (tables, size), (instruction.channel_stride, 1)),))
    yield Access("output", "sram", True, _view_boxes(instruction.output, dims))


def _read(role: str, boxes: tuple[Box, ...]) -> Access:
    return Access(role, "sram", False, boxes)


def _output(instruction: isa.Conv | isa.Deconv | isa.Pool | isa.Resize) -> Access:
    return Access("output", "sram", True, _map_boxes(instruction.output, instruction.rows, instruction.columns))


def _strided(address: int, dims: isa.Four, strides: isa.Three) -> tuple[Box, ...]:
    return (Box(address, dims, (*strides, 1)),)


def _block(address: int, size: int) -> tuple[Box, ...]:
    return (Box(address, (size,), (1,)),) if size else ()


def _view_boxes(view: isa.View, dims: isa.Four) -> tuple[Box, ...]:
    counts = tuple(1 if stride == 0 else count for count, stride in zip(dims, view.strides, strict=True))
    return (Box(view.address, (*counts, view.dtype), (*view.strides, 1)),)


def _map_boxes(feature_map: isa.FeatureMap, rows: Span, columns: Span) -> tuple[Box, ...]:
    """The rows and columns of a window; two boxes where the ring wraps."""
    count, width = rows[1] - rows[0], columns[1] - columns[0]
    if count <= 0 or width <= 0:
        return ()
    held = feature_map.ring_rows
    if rows[0] < feature_map.first_row or rows[1] > feature_map.height or count > held:
        raise ValueError(
            f"rows {rows} of a map of {feature_map.height} rows from {feature_map.first_row}, {held} on chip"
        )
    if columns[0] < feature_map.first_column or columns[1] > feature_map.width:
        raise ValueError(f"columns {columns} of a map of {feature_map.width} columns from {feature_map.first_column}")
    slot = (rows[0] - feature_map.first_row) % held
    start = feature_map.address + (columns[0] - feature_map.first_column) * feature_map.pixel_pitch
    strides = (feature_map.row_pitch, feature_map.pixel_pitch, 1)
    run = feature_map.channels * feature_map.dtype
    boxes = []
    head = min(count, held - slot)
    for first, slots, place in ((rows[0], head, slot), (rows[0] + head, count - head, 0)):
        if slots:
            boxes.append(Box(start + place * feature_map.row_pitch, (slots, width, run), strides, first))
    return tuple(boxes)
