from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.records import (
    PackedSample,
    PackHeader,
    decode_sample,
    encode_sample,
    sample_key,
)
from carkp_carfusion.skeleton import CARFUSION, plain_skeleton
from carkp_core.errors import DataError

SAMPLE = PackedSample("train/a/ü.jpg", np.arange(36, dtype=np.float32).reshape(12, 3), b"\xff\xd8 image")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30), st.integers(0, 30), st.binary(max_size=200))
def test_a_sample_survives(name: str, keypoints: int, image: bytes):
    rows = np.random.default_rng(keypoints).normal(size=(keypoints, 3)).astype(np.float32)
    found = decode_sample(encode_sample(PackedSample(name, rows, image)), "x")
    assert (found.name, found.image) == (name, image)
    assert (found.rows == rows).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200))
def test_a_cut_record_is_refused(length: int):
    data = encode_sample(SAMPLE)
    if length < len(data):
        with pytest.raises(DataError, match="damaged"):
            decode_sample(data[:length], "x")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_no_bytes_do_worse_than_a_data_error(data: bytes):
    with contextlib.suppress(DataError):
        decode_sample(data, "x")


def test_a_record_with_something_behind_it_is_refused():
    with pytest.raises(DataError, match="damaged"):
        decode_sample(encode_sample(SAMPLE) + b"x", "x")


def test_a_name_that_is_not_utf8_is_refused():
    data = bytearray(encode_sample(SAMPLE))
    data[12 + 12 * 12] = 0xFF
    with pytest.raises(DataError, match="damaged"):
        decode_sample(bytes(data), "x")


def test_the_layout_is_the_documented_one():
    data = encode_sample(PackedSample("ab", np.array([[1, 2, 1]], np.float32), b"JPEG"))
    assert data == bytes.fromhex("04000000 02000000 01000000 0000803f 00000040 0000803f") + b"abJPEG"


def test_keys_sort_by_index():
    keys = [sample_key(index) for index in (0, 1, 255, 256, 65536, 2**33)]
    assert keys == sorted(keys)
    assert all(len(key) == 8 for key in keys)


def test_the_header_survives():
    header = PackHeader(7, "train", CARFUSION)
    assert PackHeader.from_bytes(header.to_bytes(), "x") == header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not made by carkp"),
        ({"version": 2}, "another format version"),
        ({"count": "7"}, "damaged"),
        ({"count": -1}, "damaged"),
        ({"skeleton": None}, "not a skeleton"),
    ],
)
def test_a_foreign_header_is_refused(change: dict[str, object], message: str):
    value = {**json.loads(PackHeader(7, "train", plain_skeleton(3)).to_bytes()), **change}
    with pytest.raises(DataError, match=message):
        PackHeader.from_bytes(json.dumps(value).encode(), "x")


@pytest.mark.parametrize("data", [None, b"", b"\xff\xfe", b"[]"])
def test_no_header_is_refused(data: bytes | None):
    with pytest.raises(DataError, match="not made by carkp"):
        PackHeader.from_bytes(data, "x")
