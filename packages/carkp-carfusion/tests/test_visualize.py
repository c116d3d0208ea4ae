from __future__ import annotations

import numpy as np
import pytest

from carkp_carfusion.skeleton import CARFUSION, Skeleton, plain_skeleton
from carkp_carfusion.visualize import (
    DrawStyle,
    contact_sheet,
    draw_box,
    draw_comparison,
    draw_keypoints,
    keypoints_tile,
    overlay_heatmaps,
)

GREY = np.full((60, 80, 3), 128, np.uint8)
ONE = Skeleton("one", ("p",), colours=((255, 0, 0),))
PAIR = Skeleton("pair", ("a", "b"), edges=((0, 1),), colours=((255, 0, 0), (0, 0, 255)))


def changed(image: np.ndarray, base: np.ndarray = GREY) -> np.ndarray:
    """Bool [H, W]: where two images differ."""
    return (image != base).any(2)


@pytest.mark.parametrize("place", [(20.0, 30.0), (20.5, 30.25), (0.0, 0.0)])
def test_a_point_is_drawn_about_its_pixel_centre(place: tuple[float, float]):
    style = DrawStyle(radius_px=3)
    weight = changed(draw_keypoints(GREY, np.array([place]), ONE, style=style))
    y, x = np.nonzero(weight)
    if min(place) > 4:
        assert (x.mean(), y.mean()) == pytest.approx(place, abs=0.3)
    else:
        assert weight[0, 0]


def test_the_argument_is_not_drawn_into():
    before = GREY.copy()
    draw_keypoints(GREY, np.array([[20.0, 30.0]]), ONE)
    draw_box(GREY, (1, 1, 20, 20), label="7")
    assert (before == GREY).all()


def test_invalid_points_and_their_edges_are_left_out():
    points = np.array([[10.0, 10.0], [60.0, 40.0]])
    one = changed(draw_keypoints(GREY, points, PAIR, valid=np.array([1, 0])))
    both = changed(draw_keypoints(GREY, points, PAIR, valid=np.array([1, 1])))
    assert one[10, 10]
    assert not one[25, 35]
    assert not one[40, 60]
    assert both[25, 35]
    assert both[40, 60]


def test_points_below_the_confidence_or_not_finite_are_left_out():
    points = np.array([[10.0, 10.0, 0.2], [60.0, 40.0, 0.9]])
    drawn = changed(draw_keypoints(GREY, points, PAIR, style=DrawStyle(min_confidence=0.5)))
    assert not drawn[10, 10]
    assert drawn[40, 60]
    assert not changed(draw_keypoints(GREY, np.full((2, 2), np.nan), PAIR)).any()


def test_confidences_are_written_beside_the_points():
    points = np.array([[20.0, 30.0, 0.87]])
    bare = draw_keypoints(GREY, points, ONE, style=DrawStyle())
    written = draw_keypoints(GREY, points, ONE, style=DrawStyle(show_confidence=True))
    assert changed(written, bare).any()


def test_far_away_points_do_not_upset_the_drawing():
    points = np.array([[10.0, 10.0], [1e9, -1e9]])
    assert draw_keypoints(GREY, points, PAIR).shape == GREY.shape


def test_a_comparison_marks_the_truth_and_the_way_to_it():
    drawn = changed(draw_comparison(GREY, np.array([[10.0, 30.0, 1.0]]), np.array([[50.0, 30.0]]), np.array([1]), ONE))
    assert drawn[30, 30], "the error line"
    assert drawn[27:34, 44:57].any(), "the ring"


def test_a_heatmap_lights_up_its_own_pixels():
    heatmaps = np.zeros((2, 15, 20), np.float32)
    heatmaps[1, 5, 10] = 1
    y, x = np.nonzero(changed(overlay_heatmaps(GREY, heatmaps)))
    # Cell (10, 5) covers the pixels about (10.5 * 4 - 0.5, 5.5 * 4 - 0.5).
    assert (x.mean(), y.mean()) == pytest.approx((41.5, 21.5), abs=0.1)


def test_a_tile_keeps_points_on_their_pixels():
    image = GREY.copy()
    image[30, 20] = 255
    tile = keypoints_tile(image, np.array([[20.0, 30.0]]), ONE, tile_hw=(240, 320))
    assert tile.shape == (240, 320, 3)
    # The pixel (20, 30) enlarged by 4 has its centre at 20.5 * 4 - 0.5.
    assert tuple(tile[122, 82]) == (255, 0, 0)


@pytest.mark.parametrize("count", [0, 1, 5, 24])
def test_a_sheet_holds_every_tile(count: int):
    tiles = [(np.full((60, 90, 3), 200, np.uint8), f"tile {index}\nsecond line") for index in range(count)]
    sheet = contact_sheet(tiles, columns=3, tile_hw=(60, 90), title="title", legend=CARFUSION)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == min(max(count, 1), 3) * 98 + 8
    assert (sheet == 200).all(2).sum() >= count * 60 * 90


def test_a_legend_names_any_number_of_points():
    assert contact_sheet([(GREY, "")], legend=plain_skeleton(60)).shape[0] > contact_sheet([(GREY, "")]).shape[0]
