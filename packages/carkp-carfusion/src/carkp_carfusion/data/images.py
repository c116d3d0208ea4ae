"""Reading and writing image files: always RGB uint8 [H, W, 3], always the stored pixel grid."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from carkp_carfusion.data.files import make_folder, write_bytes
from carkp_core.errors import DataError

Image = NDArray[np.uint8]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

# Labels refer to the stored pixels, so an EXIF orientation must not turn the image.
_DECODE = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def decode_image(data: bytes) -> Image | None:
    """Decode JPEG or PNG bytes to RGB [H, W, 3], or return None if they are not a whole image."""
    if not data or _cut_short(data):
        return None
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), _DECODE)
    except cv2.error:
        return None
    if bgr is None:
        return None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _cut_short(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker; some OpenCV versions fill the missing rows with grey and say nothing."""
    return data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9", len(data) // 2) < 0


def encode_jpeg(image_rgb: Image, quality: int = 95) -> bytes:
    """Encode RGB [H, W, 3] as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def read_image(path: Path) -> Image:
    """Read an image file as RGB [H, W, 3].

    Raises
    ------
    DataError
        If the file is missing or doesn't decode.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        remedy = "check the path"
        raise DataError("the image cannot be read", where=str(path), seen=error.strerror, remedy=remedy) from error
    image = decode_image(data)
    if image is None:
        raise DataError("the image does not decode", where=str(path), allowed="a whole JPEG or PNG file")
    return image


def write_image(path: Path, image_rgb: Image) -> None:
    """Write RGB [H, W, 3] as PNG or JPEG (by the name's ending), atomically; the folder is made."""
    suffix = path.suffix.lower() if path.suffix.lower() in IMAGE_SUFFIXES else ".png"
    done, data = cv2.imencode(suffix, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    assert done
    make_folder(path.parent)
    write_bytes(path, data.tobytes())
