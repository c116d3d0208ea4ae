"""The ``.hbm`` container: a header, a section table, sections. carkp's own format; it runs on no board.

::

    header   magic "CARKPHBM", format version uint32, section count uint32, file size uint64,
             CRC-32 of the section table uint32, zero uint32
    table    per section: name 16 bytes (ASCII, zero padded), offset uint64, length uint64, CRC-32 uint32, zero uint32
    sections "model", "constants", "instructions", "debug" in this order, each at a multiple of 64, gaps zero

Little endian. Same contents, same bytes. Reading checks every bound and executes nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from carkp_core.errors import BackendError

MAGIC = b"CARKPHBM"
FORMAT_VERSION = 1
ALIGNMENT = 64
SECTIONS = ("model", "constants", "instructions", "debug")

_HEADER = struct.Struct("<8sIIQII")
_ENTRY = struct.Struct("<16sQQII")


def pack_sections(sections: Mapping[str, bytes]) -> bytes:
    """A file's bytes."""
    assert tuple(sections) == SECTIONS
    offset = _HEADER.size + len(SECTIONS) * _ENTRY.size
    entries, blocks = [], []
    for name, data in sections.items():
        gap = -offset % ALIGNMENT
        offset += gap
        entries.append(_ENTRY.pack(name.encode(), offset, len(data), zlib.crc32(data), 0))
        blocks.append(bytes(gap) + data)
        offset += len(data)
    table = b"".join(entries)
    header = _HEADER.pack(MAGIC, FORMAT_VERSION, len(SECTIONS), offset, zlib.crc32(table), 0)
    return header + table + b"".join(blocks)


def unpack_sections(data: bytes) -> dict[str, bytes]:
    """Sections by name.

    Raises
    ------
    BackendError
        When the file is not an ``.hbm``, is of another format version, or is damaged.
    """
    try:
        return _unpack(data)
    except ValueError as error:
        raise BackendError(
            "this is not an intact carkp .hbm file",
            seen=str(error),
            remedy="compile the model again",
        ) from error
    except _ForeignVersion as error:
        raise BackendError(
            "this .hbm file has another format version",
            seen=f"version {error.version}",
            allowed=f"version {FORMAT_VERSION}",
            remedy="update carkp-bpu" if error.version > FORMAT_VERSION else "compile the model again",
        ) from error


class _ForeignVersion(Exception):
    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


def _unpack(data: bytes) -> dict[str, bytes]:
    if len(data) < _HEADER.size:
        raise ValueError(f"{len(data)} bytes, a header has {_HEADER.size}")
    magic, version, count, size, table_crc, zero = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r}, not {MAGIC!r}")
    if version != FORMAT_VERSION:
        raise _ForeignVersion(version)
    if size != len(data) or count != len(SECTIONS) or zero:
        raise ValueError(f"{len(data)} bytes and {count} sections, {size} and {len(SECTIONS)} expected")
    end = _HEADER.size + count * _ENTRY.size
    table = data[_HEADER.size : end]
    if len(table) != count * _ENTRY.size or zlib.crc32(table) != table_crc:
        raise ValueError("the section table is damaged")
    found = {}
    for index, expected in enumerate(SECTIONS):
        name, offset, length, crc, _ = _ENTRY.unpack_from(table, index * _ENTRY.size)
        if name.rstrip(b"\0") != expected.encode():
            raise ValueError(f"section {name!r} where {expected!r} belongs")
        if offset < end or offset + length > len(data) or any(data[end:offset]):
            raise ValueError(f"section {expected!r} lies at {offset}..{offset + length} of {len(data)} bytes")
        section = data[offset : offset + length]
        if zlib.crc32(section) != crc:
            raise ValueError(f"section {expected!r} is damaged")
        found[expected] = section
        end = offset + length
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes behind the last section")
    return found
