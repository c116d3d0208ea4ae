from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.heatmap_target import cells_to_pixels, encode_heatmaps, pixels_to_cells

coordinates = st.floats(-40, 170, allow_nan=False, width=32)


def by_definition(
    x: float, y: float, heatmap_hw: tuple[int, int], stride: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """One keypoint, cell by cell."""
    h, w = heatmap_hw
    heatmap, weight = np.zeros((h, w)), np.full((h, w), 0.1)
    u, v = (x + 0.5) / stride - 0.5, (y + 0.5) / stride - 0.5
    for row in range(h):
        for col in range(w):
            d2 = (col - u) ** 2 + (row - v) ** 2
            if d2 <= (3 * sigma) ** 2:
                heatmap[row, col] = math.exp(-d2 / (2 * sigma**2))
                weight[row, col] = 1
    return heatmap, weight


@settings(max_examples=40, deadline=None)
@given(
    points=st.lists(st.tuples(coordinates, coordinates, st.booleans()), min_size=1, max_size=4),
    sigma=st.sampled_from([0.5, 0.8, 1.0, 2.0]),
    shape=st.sampled_from([(32, 32), (9, 17), (1, 1)]),
    stride=st.sampled_from([4, 8, 3.5]),
)
def test_it_equals_the_definition(
    points: list[tuple[float, float, bool]], sigma: float, shape: tuple[int, int], stride: float
) -> None:
    xy = np.array([p[:2] for p in points])
    heatmap, weight = encode_heatmaps(xy, [p[2] for p in points], shape, stride, sigma)
    assert heatmap.dtype == weight.dtype == np.float32
    for k, (x, y, valid) in enumerate(points):
        expected = by_definition(x, y, shape, stride, sigma) if valid else (np.zeros(shape), np.zeros(shape))
        np.testing.assert_allclose(heatmap[k], expected[0], atol=1e-6)
        np.testing.assert_allclose(weight[k], expected[1], atol=1e-7)


def test_the_peak_is_the_keypoint_itself_not_the_nearest_cell() -> None:
    on_cell = cells_to_pixels([[5, 7]], 4)
    heatmap, _ = encode_heatmaps(on_cell, [1], (16, 16), 4, 1.0)
    assert heatmap[0, 7, 5] == 1
    assert heatmap[0, 7, 6] == heatmap[0, 7, 4]
    heatmap, _ = encode_heatmaps(on_cell + 1, [1], (16, 16), 4, 1.0)
    assert heatmap[0, 7, 6] > heatmap[0, 7, 4]


def test_what_is_not_valid_has_no_weight() -> None:
    xy = [[10.0, 10.0], [np.nan, 3.0], [np.inf, 3.0], [1e30, 3.0], [20.0, 20.0]]
    heatmap, weight = encode_heatmaps(xy, [0, 1, 1, 1, 1], (8, 8), 4, 1.0)
    assert not weight[:3].any()
    assert not heatmap[:4].any()
    assert (weight[3] == np.float32(0.1)).all()
    assert heatmap[4].max() > 0.7


def test_arguments_are_not_written_to_and_none_is_needed() -> None:
    xy, valid = np.full((2, 2), 9.0), np.ones(2)
    xy.flags.writeable = valid.flags.writeable = False
    encode_heatmaps(xy, valid, (8, 8), 4, 1.0)
    heatmap, weight = encode_heatmaps(np.zeros((0, 2)), np.zeros(0), (8, 8), 4, 1.0)
    assert heatmap.shape == weight.shape == (0, 8, 8)


def test_pixels_and_cells_are_inverse_and_share_corners() -> None:
    assert pixels_to_cells(-0.5, 4) == pytest.approx(-0.5)  # left edge of the image, left edge of the first cell
    assert pixels_to_cells(127.5, 4) == pytest.approx(31.5)
    assert cells_to_pixels(pixels_to_cells([3.25, 99.0], 4), 4) == pytest.approx([3.25, 99.0])
