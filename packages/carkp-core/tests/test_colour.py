"""BT.601 full range in whole numbers, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from carkp_core.colour import rgb_to_yuv444
from carkp_core.errors import DataError


def exact(red: int, green: int, blue: int) -> tuple[int, ...]:
    """The standard's own formula in rationals, rounded half up and clamped."""
    kr, kb = Fraction(299, 1000), Fraction(114, 1000)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    values = (luma, 128 + (blue - luma) / (2 * (1 - kb)), 128 + (red - luma) / (2 * (1 - kr)))
    return tuple(min(255, max(0, math.floor(value + Fraction(1, 2)))) for value in values)


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [
        ((255, 255, 255), (255, 128, 128)),
        ((0, 0, 0), (0, 128, 128)),
        ((255, 0, 0), (76, 85, 255)),
        ((0, 255, 0), (150, 44, 21)),
        ((0, 0, 255), (29, 255, 107)),
        ((128, 128, 128), (128, 128, 128)),
    ],
)
def test_primaries(rgb, yuv):
    assert tuple(rgb_to_yuv444(np.array([[rgb]], dtype=np.uint8))[0, 0]) == yuv == exact(*rgb)


def test_equals_the_exact_fractions():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    expected = [[exact(*map(int, pixel)) for pixel in row] for row in image]
    np.testing.assert_array_equal(rgb_to_yuv444(image), np.array(expected))


def test_equals_integer_division_on_a_dense_grid():
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    image = np.stack(np.meshgrid(levels, levels, np.arange(256, dtype=np.uint8), indexing="ij"), axis=-1)
    r, g, b = (image[..., c].astype(np.int64) for c in range(3))
    y = (299 * r + 587 * g + 114 * b + 500) // 1000
    u = (886 * b - 587 * g - 299 * r + 886) // 1772 + 128
    v = (701 * r - 587 * g - 114 * b + 701) // 1402 + 128
    np.testing.assert_array_equal(rgb_to_yuv444(image), np.clip(np.stack([y, u, v], axis=-1), 0, 255))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.float32), np.zeros((3, 4, 4), np.uint8)])
def test_refuses_what_is_not_an_image(image):
    with pytest.raises(DataError, match="not an RGB image"):
        rgb_to_yuv444(image)
