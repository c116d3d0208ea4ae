"""Rules that every instruction obeys by itself, whatever the memories hold."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from carkp_bpu.hbm import isa

_KERNEL_LIMIT = 1 << 16
_SHIFTS = range(1, 63)
#: A term of a sum keeps 15 fractional bits, so 15 less is left to shift.
_TERM_SHIFTS = range(16, 63)


def check_instruction(instruction: isa.Instruction) -> None:
    """Raise ValueError with the first rule that an instruction breaks."""
    for broken in _findings(instruction):
        raise ValueError(f"{type(instruction).__name__.lower()}: {broken}")


def _findings(instruction: isa.Instruction) -> Iterator[str]:
    for name in attrs.fields_dict(type(instruction)):
        value = getattr(instruction, name)
        match value:
            case isa.FeatureMap():
                yield from _map_findings(name, value)
            case isa.Residual():
                yield from _map_findings(name, value.map)
                yield from _shift_findings(value.shift, _TERM_SHIFTS)
            case isa.View():
                yield from _view_findings(name, value)
    lo, hi = getattr(instruction, "lo", 0), getattr(instruction, "hi", 0)
    if lo > hi:
        yield f"lo {lo} is above hi {hi}"
    match instruction:
        case isa.Load() | isa.Store():
            yield from _positive("dims", instruction.dims)
        case isa.Conv() | isa.Deconv() | isa.Pool() | isa.Resize():
            yield from _structured(instruction)
        case _:
            yield from _vector(instruction)


def _structured(instruction: isa.Conv | isa.Deconv | isa.Pool | isa.Resize) -> Iterator[str]:
    output = instruction.output
    for name, (begin, end), size in (
        ("rows", instruction.rows, output.height),
        ("columns", instruction.columns, output.width),
    ):
        if not 0 <= begin < end <= size:
            yield f"{name} {begin}..{end} of {size}"
    if isinstance(instruction, isa.Resize):
        yield from _positive("numerator_hw", instruction.numerator_hw)
        yield from _positive("denominator_hw", instruction.denominator_hw)
        yield from _shift_findings(instruction.shift, _SHIFTS)
        yield from _flags(mode=instruction.mode)
        return
    yield from _positive("kernel_hw", instruction.kernel_hw)
    yield from _positive("stride_hw", instruction.stride_hw)
    if max(instruction.kernel_hw) > _KERNEL_LIMIT:
        yield f"kernel {instruction.kernel_hw}"
    if isinstance(instruction, (isa.Conv, isa.Pool)):
        yield from _positive("dilation_hw", instruction.dilation_hw)
    if isinstance(instruction, (isa.Conv, isa.Deconv)):
        channels = (instruction.input.channels, output.channels)
        if not instruction.groups or any(count % instruction.groups for count in channels):
            yield f"{instruction.groups} groups of {channels[0]} and {channels[1]} channels"
    if isinstance(instruction, isa.Pool):
        yield from _flags(mode=instruction.mode, first=instruction.first, last=instruction.last)
        begin, end = instruction.kernel_rows
        if not 0 <= begin < end <= instruction.kernel_hw[0]:
            yield f"kernel_rows {begin}..{end} of {instruction.kernel_hw[0]}"
    if isinstance(instruction, isa.Pool) and instruction.input.channels != output.channels:
        yield f"{instruction.input.channels} channels become {output.channels}"


def _vector(
    instruction: isa.Add | isa.Mul | isa.Rescale | isa.Clamp | isa.Table | isa.Copy | isa.Fill,
) -> Iterator[str]:
    yield from _positive("dims", instruction.dims)
    output = instruction.output
    if any(count > 1 and stride < output.dtype for count, stride in zip(instruction.dims, output.strides, strict=True)):
        yield f"elements of the result coincide: strides {output.strides}"
    match instruction:
        case isa.Add():
            if not instruction.terms:
                yield "no terms"
            for term in instruction.terms:
                yield from _view_findings("term", term.view)
                yield from _shift_findings(term.shift, _TERM_SHIFTS)
                yield from _flags(negative=term.negative)
        case isa.Mul() | isa.Rescale():
            yield from _shift_findings(instruction.shift, _SHIFTS)
        case isa.Table():
            if instruction.entries not in (256, 513) or instruction.entry_dtype not in (1, 2):
                yield f"{instruction.entries} entries of {instruction.entry_dtype} bytes"
            if instruction.entries == 256 and instruction.input.dtype != 1:
                yield "256 entries look up int8 only"
            if instruction.entries == 513 and instruction.channel_stride:
                yield "interpolated tables are not per channel"
        case isa.Copy():
            if instruction.input.dtype != output.dtype:
                yield f"elements of {instruction.input.dtype} bytes become {output.dtype}"


def _map_findings(name: str, value: isa.FeatureMap) -> Iterator[str]:
    yield from _dtype_findings(name, value.dtype)
    sizes = (value.height, value.width, value.channels, value.ring_rows)
    yield from _positive(f"{name} sizes", sizes)
    if value.pixel_pitch < value.channels * value.dtype:
        yield f"{name}: a pixel of {value.channels * value.dtype} bytes every {value.pixel_pitch}"
    if any(number % max(value.dtype, 1) for number in (value.address, value.pixel_pitch, value.row_pitch)):
        yield f"{name}: address and pitches are not multiples of {value.dtype} bytes"
    if value.row_pitch < value.pixel_pitch:
        yield f"{name}: row_pitch {value.row_pitch} is under pixel_pitch {value.pixel_pitch}"


def _view_findings(name: str, value: isa.View) -> Iterator[str]:
    yield from _dtype_findings(name, value.dtype)
    if any(number % max(value.dtype, 1) for number in (value.address, *value.strides)):
        yield f"{name}: address and strides are not multiples of {value.dtype} bytes"


def _dtype_findings(name: str, code: int) -> Iterator[str]:
    if code not in isa.DTYPES:
        yield f"{name}: type code {code}, known are {sorted(isa.DTYPES)}"


def _positive(name: str, values: tuple[int, ...]) -> Iterator[str]:
    if min(values) < 1:
        yield f"{name} {values} is not positive"


def _shift_findings(shift: int, allowed: range) -> Iterator[str]:
    if shift not in allowed:
        yield f"shift {shift}, outside {allowed.start}..{allowed.stop - 1}"


def _flags(**values: int) -> Iterator[str]:
    for name, value in values.items():
        if value > 1:
            yield f"{name} is {value}, not 0 or 1"
