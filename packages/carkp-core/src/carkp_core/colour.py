"""RGB to YUV by BT.601, full range, in whole numbers: the one definition that data, backends and drawing share.

Legend: ``H W`` image size; images are uint8 [..., 3].

With Kr = 0.299 and Kb = 0.114 the standard says Y = Kr R + (1 - Kr - Kb) G + Kb B, U = 128 + (B - Y) / (2 (1 - Kb))
and V = 128 + (R - Y) / (2 (1 - Kr)). In thousandths these are exact fractions::

    Y = (299 R + 587 G + 114 B) / 1000
    U = (886 B - 587 G - 299 R) / 1772 + 128
    V = (701 R - 587 G - 114 B) / 1402 + 128

rounded half up and clamped to 0..255 (only a pure blue's U and a pure red's V, 255.5, meet the clamp).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from carkp_core.errors import DataError

Image = npt.NDArray[np.uint8]

_NUMERATORS = np.array([[299, -299, 701], [587, -587, -587], [114, 886, -114]], dtype=np.float32)
_DENOMINATORS = np.array([1000, 1772, 1402], dtype=np.float32)
# Half a step for the rounding, and the 128 of the chroma, over the denominators.
_OFFSETS = np.array([500, 886 + 128 * 1772, 701 + 128 * 1402], dtype=np.float32)


def rgb_to_yuv444(image_rgb: Image) -> Image:
    """RGB uint8 [..., 3] -> YUV uint8 of the same shape, BT.601 full range, rounded half up.

    Exact although it computes in float32: every sum is a whole number below 2**24, and a quotient below 256 that is
    not whole lies at least 1/1772 from the next whole number, far more than its rounding error.

    Raises
    ------
    DataError
        When the image is not uint8 with three channels last.
    """
    if image_rgb.dtype != np.uint8 or image_rgb.ndim < 1 or image_rgb.shape[-1] != 3:
        seen = f"{image_rgb.dtype} {image_rgb.shape}"
        raise DataError("not an RGB image", seen=seen, allowed="uint8, three channels last")
    quotient = image_rgb.astype(np.float32) @ _NUMERATORS
    quotient += _OFFSETS
    quotient /= _DENOMINATORS
    np.minimum(quotient, 255, out=quotient)
    return quotient.astype(np.uint8)
