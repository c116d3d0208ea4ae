from __future__ import annotations

import numpy as np
import pytest

from carkp_carfusion.data.colour import rgb_to_yuv444, rgb_to_yuv444_v2, yuv444_to_rgb
from carkp_core.colour import rgb_to_yuv444 as definition


def every_colour(red: int) -> np.ndarray:
    """All colours of one red, uint8 [256, 256, 3]."""
    green, blue = np.mgrid[:256, :256]
    return np.stack([np.full_like(green, red), green, blue], -1).astype(np.uint8)


def exact(image: np.ndarray) -> np.ndarray:
    """BT.601 full range in whole numbers: floor(value + 1/2) of the exact fractions."""
    r, g, b = np.moveaxis(image.astype(np.int64), -1, 0)
    y = (2 * (299 * r + 587 * g + 114 * b) + 1000) // 2000
    u = (2 * (886 * b - 587 * g - 299 * r) + 1772) // 3544 + 128
    v = (2 * (701 * r - 587 * g - 114 * b) + 1402) // 2804 + 128
    return np.stack([y, u, v], -1).clip(0, 255)


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [
        ((255, 255, 255), (255, 128, 128)),
        ((0, 0, 0), (0, 128, 128)),
        ((128, 128, 128), (128, 128, 128)),
        ((255, 0, 0), (76, 85, 255)),
        ((0, 255, 0), (150, 44, 21)),
        ((0, 0, 255), (29, 255, 107)),
    ],
)
def test_white_black_grey_and_primaries(rgb: tuple[int, ...], yuv: tuple[int, ...]):
    image = np.full((2, 3, 3), rgb, np.uint8)
    assert (rgb_to_yuv444(image) == yuv).all()
    assert rgb_to_yuv444(image).dtype == np.uint8


def test_every_colour_is_exact_and_equal_to_cores_definition():
    for red in range(256):
        image = every_colour(red)
        converted = rgb_to_yuv444(image)
        assert (converted == exact(image)).all(), red
        if red % 16 == 0 or red == 255:
            assert (converted == definition(image)).all(), red


def test_the_second_version_is_the_fixed_point_matrix():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    r, g, b = np.moveaxis(image.astype(np.int64), -1, 0)
    expected = np.stack(
        [
            (77 * r + 150 * g + 29 * b + 128) // 256,
            (-43 * r - 84 * g + 127 * b + 128) // 256 + 128,
            (127 * r - 106 * g - 21 * b + 128) // 256 + 128,
        ],
        -1,
    )
    assert (rgb_to_yuv444_v2(image) == expected).all()


def test_the_two_versions_are_at_most_two_apart():
    worst = max(
        int(np.abs(rgb_to_yuv444(image).astype(int) - rgb_to_yuv444_v2(image)).max())
        for image in map(every_colour, (0, 1, 77, 128, 200, 254, 255))
    )
    assert 0 < worst <= 2


def test_the_way_back_is_right_within_rounding():
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.abs(yuv444_to_rgb(rgb_to_yuv444(image)).astype(int) - image).max() <= 2
