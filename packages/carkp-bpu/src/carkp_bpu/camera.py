"""What the camera pipeline delivers: an RGB image through NV12 into centred YUV444.

A sensor pipeline hands frames over as NV12: full-size luma, chroma at half size in both directions. The pyramid
in front of the NPU brings chroma back to full size and centres everything at zero.

Legend: ``H W`` image size, both even. NV12 is uint8 [H * 3 / 2, W]: H rows of Y, then H / 2 rows of U V U V ...
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from carkp_core.colour import rgb_to_yuv444
from carkp_core.errors import BackendError

Bytes = npt.NDArray[np.uint8]


def rgb_to_nv12(image_rgb: Bytes) -> Bytes:
    """RGB uint8 [H, W, 3] -> NV12 uint8 [H * 3 / 2, W].

    Each chroma sample is the mean of a 2 x 2 block of rounded full-size chroma, ``(sum + 2) >> 2``: half up.

    Raises
    ------
    BackendError
        When a side is odd: half-size chroma has no place for the last row or column.
    """
    height, width = image_rgb.shape[:2]
    if height % 2 or width % 2 or not height or not width:
        raise BackendError(
            "NV12 needs an image with even sides",
            seen=f"{width} x {height} pixels",
            allowed="even width and height",
            remedy="choose an even network input size",
        )
    yuv = rgb_to_yuv444(image_rgb)
    blocks = yuv[..., 1:].reshape(height // 2, 2, width // 2, 2, 2)
    chroma = (blocks.sum(axis=(1, 3), dtype=np.uint16) + 2) >> 2
    return np.concatenate([yuv[..., 0], chroma.astype(np.uint8).reshape(height // 2, width)])


def nv12_to_centred(nv12: Bytes) -> npt.NDArray[np.int8]:
    """NV12 uint8 [H * 3 / 2, W] -> int8 [3, H, W]: chroma repeated to full size (nearest), 128 subtracted."""
    height, width = nv12.shape[0] * 2 // 3, nv12.shape[1]
    chroma = nv12[height:].reshape(height // 2, width // 2, 2).transpose(2, 0, 1)
    centred = np.empty((3, height, width), dtype=np.uint8)
    centred[0] = nv12[:height]
    centred[1:] = chroma.repeat(2, axis=1).repeat(2, axis=2)
    # Flipping the top bit of a byte subtracts 128 once it is read as int8.
    centred ^= 0x80
    return centred.view(np.int8)


def camera_input(image_rgb: Bytes) -> npt.NDArray[np.int8]:
    """RGB uint8 [H, W, 3], even sides -> int8 [3, H, W] as the pyramid delivers it.

    Raises
    ------
    BackendError
        When a side is odd.
    DataError
        When the image is not RGB uint8.
    """
    return nv12_to_centred(rgb_to_nv12(image_rgb))
