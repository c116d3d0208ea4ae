"""Instructions as bytes and back, driven by the forms of their fields.

A record is opcode uint8, zero uint8, length uint16 (of the whole record, a multiple of 4, zero padded), then the
fields in order, little endian, without alignment.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.forms import MANY_LIMIT, Each, Form, Many, Nested, Optional, Scalar, forms
from carkp_bpu.hbm.validity import check_instruction
from carkp_core.errors import BackendError

_HEADER = struct.Struct("<BBH")
_BY_OPCODE: dict[int, type[isa.Instruction]] = {kind.OPCODE: kind for kind in isa.INSTRUCTIONS}


def encode_instructions(instructions: Iterable[isa.Instruction]) -> bytes:
    """All records, one after the other."""
    return b"".join(encode(instruction) for instruction in instructions)


def encode(instruction: isa.Instruction) -> bytes:
    """One record."""
    body = b"".join(_pack_record(instruction))
    length = _HEADER.size + len(body)
    padding = -length % 4
    return _HEADER.pack(instruction.OPCODE, 0, length + padding) + body + bytes(padding)


def decode_instructions(data: bytes) -> tuple[isa.Instruction, ...]:
    """Every record of a section.

    Raises
    ------
    BackendError
        When a record is damaged; the message names its index and offset.
    """
    found: list[isa.Instruction] = []
    offset = 0
    while offset < len(data):
        try:
            instruction, offset = _decode(data, offset)
        except (ValueError, struct.error) as error:
            raise BackendError(
                f"instruction {len(found)} cannot be decoded",
                where=f"instruction section, offset {offset}",
                seen=str(error),
                remedy="compile the model again",
            ) from error
        found.append(instruction)
    return tuple(found)


def _decode(data: bytes, offset: int) -> tuple[isa.Instruction, int]:
    opcode, zero, length = _HEADER.unpack_from(data, offset)
    kind = _BY_OPCODE.get(opcode)
    if kind is None or zero:
        raise ValueError(f"opcode {opcode}, {zero}")
    end = offset + length
    if length < _HEADER.size or length % 4 or end > len(data):
        raise ValueError(f"record of {length} bytes, {len(data) - offset} are left")
    reader = _Reader(data[offset + _HEADER.size : end])
    instruction: isa.Instruction = reader.record(kind)
    reader.finish()
    check_instruction(instruction)
    return instruction, end


def _pack_record(record: Any) -> Iterator[bytes]:
    for name, form in forms(type(record)):
        yield from _pack_field(form, getattr(record, name))


def _pack_field(form: Form, value: Any) -> Iterator[bytes]:
    match form:
        case Scalar(code):
            yield struct.pack("<" + code, value)
        case Each(code, count):
            yield struct.pack(f"<{count}{code}", *value)
        case Nested():
            yield from _pack_record(value)
        case Optional():
            yield b"\0" if value is None else b"\1"
            if value is not None:
                yield from _pack_record(value)
        case Many():
            if len(value) > MANY_LIMIT:
                raise ValueError(f"{len(value)} records, at most {MANY_LIMIT}")
            yield bytes([len(value)])
            for item in value:
                yield from _pack_record(item)


class _Reader:
    """Takes fields off the front of one record's body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    def record(self, kind: type) -> Any:
        return kind(**{name: self._field(form) for name, form in forms(kind)})

    def finish(self) -> None:
        rest = self._body[self._offset :]
        if len(rest) > 3 or any(rest):
            raise ValueError(f"{len(rest)} bytes behind the last field")

    def _field(self, form: Form) -> Any:
        match form:
            case Scalar(code):
                return self._take("<" + code)[0]
            case Each(code, count):
                return self._take(f"<{count}{code}")
            case Nested(record):
                return self.record(record)
            case Optional(record):
                present = self._take("<B")[0]
                if present > 1:
                    raise ValueError(f"presence flag {present}")
                return self.record(record) if present else None
            case Many(record):
                return tuple(self.record(record) for _ in range(self._take("<B")[0]))

    def _take(self, code: str) -> tuple[int, ...]:
        values = struct.unpack_from(code, self._body, self._offset)
        self._offset += struct.calcsize(code)
        return values
