"""Colour at the speed of data loading, and the way back for the eye.

`carkp_core.colour` defines RGB to YUV (BT.601 full range, 4:4:4, rounded half up); `rgb_to_yuv444` here gives the same
bits for all 16.7 million colours in a fifth of the time, through OpenCV's matrix kernel.
"""

from __future__ import annotations

import cv2
import numpy as np

from carkp_carfusion.data.images import Image

_R, _G, _B = 0.299, 0.587, 0.114

# Y, U, V are multiples of 1/1000, 1/1772 and 1/1402: a value that isn't a tie is at least 1/1772 from the next tie.
# So 1e-4 more turns rounding to nearest into rounding half up, and float32's error (below 4e-5 here) can't undo it.
_TIE = 1e-4
_TO_YUV = np.array(
    [
        [_R, _G, _B, _TIE],
        [-_R / 1.772, -_G / 1.772, (1 - _B) / 1.772, 128 + _TIE],
        [(1 - _R) / 1.402, -_G / 1.402, -_B / 1.402, 128 + _TIE],
    ],
    np.float32,
)
_TO_RGB = np.array([[1, 0, 1.402], [1, -1.772 * _B / _G, -1.402 * _R / _G], [1, 1.772, 0]])

# The vendor's second converter: the same matrix in 8-bit fixed point, exact in float32.
_TO_YUV_V2 = np.array([[77, 150, 29, 128], [-43, -84, 127, 32896], [127, -106, -21, 32896]], np.float32) / 256


def rgb_to_yuv444(image_rgb: Image) -> Image:
    """Convert RGB uint8 [H, W, 3] to YUV uint8 [H, W, 3]: equal to `carkp_core.colour.rgb_to_yuv444`."""
    yuv = cv2.transform(image_rgb.astype(np.float32), _TO_YUV)
    np.rint(yuv, out=yuv)
    return np.minimum(yuv, 255.0, out=yuv).astype(np.uint8)


def rgb_to_yuv444_v2(image_rgb: Image) -> Image:
    """Convert RGB uint8 [H, W, 3] to YUV uint8 [H, W, 3] in 8-bit fixed point.

    With whole weights over 256: ``(77 R + 150 G + 29 B + 128) >> 8`` and so on; within 2 of `rgb_to_yuv444`. The
    range is 0..255 as well, so the same ``Normalize`` follows either.
    """
    return cv2.transform(image_rgb.astype(np.float32), _TO_YUV_V2).astype(np.uint8)  # truncation: values are >= 0


def yuv444_to_rgb(image_yuv: Image) -> Image:
    """Convert YUV uint8 [H, W, 3] back to RGB uint8 for the eye: rounded and clamped."""
    rgb = (image_yuv.astype(np.float64) - (0, 128, 128)) @ _TO_RGB.T
    return np.clip(np.floor(rgb + 0.5), 0, 255).astype(np.uint8)
