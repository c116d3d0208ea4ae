from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from carkp_carfusion.data.images import decode_image, encode_jpeg, read_image, write_image
from carkp_core.errors import DataError

RED = np.zeros((32, 48, 3), np.uint8)
RED[..., 0] = 255


def test_images_are_rgb(tmp_path: Path):
    write_image(tmp_path / "deep" / "red.png", RED)
    assert (read_image(tmp_path / "deep" / "red.png") == RED).all()
    decoded = decode_image(encode_jpeg(RED))
    assert decoded is not None
    assert decoded[0, 0, 0] > 240
    assert decoded[0, 0, 2] < 20


def test_whatever_is_not_a_whole_image_decodes_to_none():
    data = encode_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    assert decode_image(b"") is None
    assert decode_image(b"not an image") is None
    for share in (0.1, 0.5, 0.9):
        assert decode_image(data[: int(share * len(data))]) is None


def test_an_exif_orientation_does_not_turn_the_pixels():
    data = encode_jpeg(RED)
    # An APP1 segment with one entry: orientation 6, turn by 90 degrees.
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + tiff
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    rotated = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert rotated.shape[:2] == (48, 32), "the segment is one that OpenCV understands"
    decoded = decode_image(turned)
    assert decoded is not None
    assert decoded.shape[:2] == (32, 48)


def test_reading_says_what_is_wrong_with_the_file(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "missing.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(DataError, match="does not decode"):
        read_image(tmp_path / "bad.jpg")
