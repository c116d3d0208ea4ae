"""Geometry of images and points. An integer coordinate is a pixel's centre, so a pixel covers x - 0.5 to x + 0.5.

Shape legend: H W image size, K keypoints. Affine maps are float64 [2, 3]; sizes are (height, width).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from carkp_carfusion.data.images import Image

Affine = NDArray[np.float64]


def identity() -> Affine:
    """The map that changes nothing."""
    return np.eye(2, 3)


def scaling(scale_x: float, scale_y: float) -> Affine:
    """Resizing by (scale_x, scale_y): x' = (x + 0.5) s - 0.5."""
    return np.array([[scale_x, 0.0, 0.5 * scale_x - 0.5], [0.0, scale_y, 0.5 * scale_y - 0.5]])


def shift(dx: float, dy: float) -> Affine:
    """Moving by (dx, dy) pixels."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])


def mirror(width: int) -> Affine:
    """Mirroring an image of this width left to right: x' = W - 1 - x."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def compose(after: Affine, before: Affine) -> Affine:
    """The map that does ``before`` and then ``after``."""
    result = after[:, :2] @ before
    result[:, 2] += after[:, 2]
    return result


def invert(affine: Affine) -> Affine:
    """The map back."""
    inverse = np.linalg.inv(affine[:, :2])
    return np.concatenate([inverse, -inverse @ affine[:, 2:]], axis=1)


def move_points(affine: Affine, points_xy: NDArray[np.floating]) -> NDArray[np.floating]:
    """Map points [..., 2]; the result has the points' own type."""
    moved = points_xy @ affine[:, :2].T + affine[:, 2]
    return moved.astype(points_xy.dtype)


def fit_size(image_hw: tuple[int, int], target_hw: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) of the image's own proportions that fits into the target, at least 1 pixel."""
    (height, width), (target_h, target_w) = image_hw, target_hw
    if target_h * width <= target_w * height:
        return target_h, min(target_w, max(1, round(width * target_h / height)))
    return min(target_h, max(1, round(height * target_w / width))), target_w


def resize_image(image: Image, size_hw: tuple[int, int]) -> Image:
    """Resize to exactly (height, width), with pixel centres kept: x' = (x + 0.5) s - 0.5.

    Bilinear. An image that shrinks by more than 2 is first brought to a power-of-two multiple of the target and then
    averaged in whole blocks, which keeps fine detail from aliasing at a tenth of the cost of a general area filter.
    """
    height, width = image.shape[:2]
    target_h, target_w = size_hw
    if (height, width) == (target_h, target_w):
        return image
    shrink = min(height / target_h, width / target_w)
    factor = 1 << max(0, int(np.floor(np.log2(shrink)))) if shrink >= 2 else 1
    resized = cv2.resize(image, (target_w * factor, target_h * factor), interpolation=cv2.INTER_LINEAR)
    if factor > 1:
        resized = cv2.resize(resized, (target_w, target_h), interpolation=cv2.INTER_AREA)
    return resized  # type: ignore[return-value]
