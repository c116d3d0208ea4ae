from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data import geometry

SIDES = st.integers(1, 400)


def blob(height: int, width: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A soft white dot whose centre of mass is (x, y)."""
    rows, columns = np.mgrid[:height, :width]
    value = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(value[..., None], 3, 2).astype(np.uint8)


def centre(image: np.ndarray) -> tuple[float, float]:
    weight = image[..., 0].astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize("size_hw", [(128, 128), (64, 100), (60, 80), (48, 33), (31, 47), (300, 400), (119, 161)])
def test_resizing_moves_pixels_as_it_moves_points(size_hw: tuple[int, int]):
    image = blob(120, 160, 70.3, 41.8, 9.0)
    affine = geometry.scaling(size_hw[1] / 160, size_hw[0] / 120)
    (expected,) = geometry.move_points(affine, np.array([centre(image)]))
    resized = geometry.resize_image(image, size_hw)
    assert resized.shape == (*size_hw, 3)
    assert centre(resized) == pytest.approx(tuple(expected), abs=0.06)


def test_a_resize_that_changes_nothing_is_free():
    image = blob(20, 30, 5, 5, 2)
    assert geometry.resize_image(image, (20, 30)) is image


def test_fine_detail_averages_instead_of_aliasing():
    stripes = np.zeros((400, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    small = geometry.resize_image(stripes, (64, 128))
    assert small.std() < 20
    assert abs(float(small.mean()) - 127.5) < 3
    assert cv2.resize(stripes, (128, 64)).std() > small.std()


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_the_fitted_size_touches_the_target_and_keeps_proportions(h: int, w: int, target_h: int, target_w: int):
    new_h, new_w = geometry.fit_size((h, w), (target_h, target_w))
    assert 1 <= new_h <= target_h
    assert 1 <= new_w <= target_w
    assert new_h == target_h or new_w == target_w
    scale = min(target_h / h, target_w / w)
    assert abs(new_h - h * scale) <= max(0.5 + 1e-9, 1 - h * scale)
    assert abs(new_w - w * scale) <= max(0.5 + 1e-9, 1 - w * scale)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 8), st.floats(0.1, 8), st.floats(-50, 50), st.integers(1, 500))
def test_composition_and_inverse(scale_x: float, scale_y: float, move: float, width: int):
    maps = (geometry.scaling(scale_x, scale_y), geometry.shift(move, -move), geometry.mirror(width))
    points = np.array([[0.0, 0.0], [3.5, -7.25], [100.0, 42.0]])
    chained, combined = points, geometry.identity()
    for affine in maps:
        chained = geometry.move_points(affine, chained)
        combined = geometry.compose(affine, combined)
    assert np.allclose(geometry.move_points(combined, points), chained)
    assert np.allclose(geometry.move_points(geometry.invert(combined), chained), points)


def test_the_three_maps_by_hand():
    assert geometry.move_points(geometry.scaling(2, 0.5), np.array([[0.0, 1.0]])).tolist() == [[0.5, 0.25]]
    assert geometry.move_points(geometry.mirror(10), np.array([[0.0, 4.0], [9.0, 4.0]])).tolist() == [[9, 4], [0, 4]]
    assert geometry.move_points(geometry.shift(3, -2), np.array([[1.0, 1.0]])).tolist() == [[4, -1]]


def test_points_keep_their_type():
    assert geometry.move_points(geometry.identity(), np.zeros((2, 2), np.float32)).dtype == np.float32
