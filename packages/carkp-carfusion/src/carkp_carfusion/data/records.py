"""The packed format: what the keys and values of a carkp LMDB hold.

Version 1. All numbers are little endian; nothing in it is executed when read.

=================  ==============================================================================================
key                value
=================  ==============================================================================================
``__carkp__``      JSON (UTF-8): ``format`` "carkp-keypoints", ``version`` 1, ``count`` N, ``split``, ``skeleton``
8 bytes, index i   sample i of 0..N-1, big endian so that keys sort by index
=================  ==============================================================================================

A sample is a 12-byte head, then three parts without padding, and nothing behind them::

    uint32 image_bytes   uint32 name_bytes   uint32 K
    K x 3 float32        rows x, y, valid (0 or 1), in the image's pixels
    name_bytes           the image's name, UTF-8
    image_bytes          the encoded image (JPEG or PNG), as it was on disk
"""

from __future__ import annotations

import json
import struct

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from carkp_carfusion.skeleton import Skeleton
from carkp_core.errors import DataError

FORMAT = "carkp-keypoints"
FORMAT_VERSION = 1
HEADER_KEY = b"__carkp__"

_HEAD = struct.Struct("<III")


@frozen
class PackHeader:
    """What a packed data set says of itself."""

    count: int
    split: str
    skeleton: Skeleton

    def to_bytes(self) -> bytes:
        """The value of `HEADER_KEY`."""
        value = {"format": FORMAT, "version": FORMAT_VERSION, "count": self.count, "split": self.split}
        return json.dumps({**value, "skeleton": self.skeleton.to_json()}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes | None, where: str) -> PackHeader:
        """Read `to_bytes`.

        Raises
        ------
        DataError
            If it is missing, not carkp's, of another version or incomplete.
        """
        try:
            value = json.loads(data) if data is not None else None
        except ValueError:
            value = None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(
                "this LMDB was not made by carkp",
                where=where,
                allowed=f"a data set packed by `carkp carfusion-packer` (format {FORMAT})",
                remedy="pack the data again with `carkp carfusion-packer`",
            )
        if value.get("version") != FORMAT_VERSION:
            raise DataError(
                "the packed data set has another format version",
                where=where,
                seen=f"version {value.get('version')}",
                allowed=f"version {FORMAT_VERSION}",
                remedy="pack the data again with this carkp, or use the carkp that packed it",
            )
        count = value.get("count")
        if not isinstance(count, int) or count < 0:
            raise DataError("the packed data set's header is damaged", where=where, seen=f"count {count!r}")
        return cls(count, str(value.get("split")), Skeleton.from_json(value.get("skeleton"), where))


@frozen(eq=False)
class PackedSample:
    """One sample: the image's name, float32 [K, 3] rows (x, y, valid) and the encoded image."""

    name: str
    rows: NDArray[np.float32]
    image: bytes


def sample_key(index: int) -> bytes:
    """The key of sample ``index``."""
    return index.to_bytes(8, "big")


def encode_sample(sample: PackedSample) -> bytes:
    """The value stored for a sample."""
    name = sample.name.encode()
    rows = np.ascontiguousarray(sample.rows, "<f4")
    return b"".join((_HEAD.pack(len(sample.image), len(name), len(rows)), rows.tobytes(), name, sample.image))


def decode_sample(data: bytes, where: str) -> PackedSample:
    """Read `encode_sample`.

    Raises
    ------
    DataError
        If the lengths in the head don't add up to the record's.
    """
    if len(data) < _HEAD.size:
        raise _damaged(where, f"{len(data)} bytes")
    image_bytes, name_bytes, keypoints = _HEAD.unpack_from(data)
    rows_end = _HEAD.size + 12 * keypoints
    name_end = rows_end + name_bytes
    if name_end + image_bytes != len(data):
        raise _damaged(where, f"parts of {name_end + image_bytes} bytes in a record of {len(data)}")
    rows = np.frombuffer(data, "<f4", 3 * keypoints, _HEAD.size).reshape(keypoints, 3).astype(np.float32)
    try:
        name = data[rows_end:name_end].decode()
    except UnicodeDecodeError:
        raise _damaged(where, "a name that is not UTF-8") from None
    return PackedSample(name, rows, data[name_end:])


def _damaged(where: str, seen: str) -> DataError:
    return DataError(
        "a record of the packed data set is damaged",
        where=where,
        seen=seen,
        remedy="pack the data again with `carkp carfusion-packer`",
    )
