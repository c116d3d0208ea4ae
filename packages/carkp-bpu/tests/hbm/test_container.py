"""The container finds every damage, and says which version it met."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.hbm.container import ALIGNMENT, FORMAT_VERSION, MAGIC, pack_sections, unpack_sections
from carkp_core.errors import BackendError

SECTIONS = {"model": b"{}", "constants": bytes(range(100)), "instructions": b"", "debug": b"xyz"}
FILE = pack_sections(SECTIONS)


def test_sections_come_back_aligned():
    assert unpack_sections(FILE) == SECTIONS
    assert FILE.index(SECTIONS["constants"]) % ALIGNMENT == 0
    assert pack_sections(SECTIONS) == FILE


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, len(FILE) - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(position, bit):
    data = bytearray(FILE)
    data[position] ^= 1 << bit
    with pytest.raises(BackendError):
        unpack_sections(bytes(data))


@pytest.mark.parametrize("size", range(0, len(FILE), 7))
def test_every_truncation_is_found(size):
    with pytest.raises(BackendError, match="not an intact"):
        unpack_sections(FILE[:size])


def test_trailing_bytes_are_found():
    with pytest.raises(BackendError, match="not an intact"):
        unpack_sections(FILE + b"\0")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0])
def test_another_version_is_named_with_ours(version):
    data = FILE[: len(MAGIC)] + struct.pack("<I", version) + FILE[len(MAGIC) + 4 :]
    with pytest.raises(BackendError, match="another format version") as caught:
        unpack_sections(data)
    assert caught.value.seen == f"version {version}"
    assert caught.value.allowed == f"version {FORMAT_VERSION}"


def test_a_foreign_file_is_refused():
    with pytest.raises(BackendError, match=r"not an intact carkp \.hbm file"):
        unpack_sections(b"\x7fELF" + bytes(200))
