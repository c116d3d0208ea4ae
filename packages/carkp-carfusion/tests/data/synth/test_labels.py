from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from carkp_carfusion.data.synth.billboard import Billboard
from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.labels import (
    OCCLUDED,
    SELF_OCCLUDED,
    VISIBLE,
    box_lines,
    label_car,
    label_lines,
)
from carkp_carfusion.data.synth.raster import SUPERSAMPLE, DepthBuffer
from carkp_carfusion.data.synth.scene import Car
from carkp_carfusion.data.synth.shapes import STYLES

RIGHT_WHEELS, LEFT_WHEELS = [0, 2], [1, 3]
CENTRE = 13


@pytest.mark.parametrize("style", [style.name for style in STYLES])
def test_the_far_wheels_of_a_lone_car_are_hidden_by_itself(
    camera: Camera, make_car: Callable[..., Car], style: str
) -> None:
    label = label_car(camera, make_car(style=style), [], [])
    assert list(label.visibility[RIGHT_WHEELS]) == [VISIBLE, VISIBLE]
    assert list(label.visibility[LEFT_WHEELS]) == [SELF_OCCLUDED, SELF_OCCLUDED]
    assert label.visibility[CENTRE] == SELF_OCCLUDED


def test_turning_the_car_round_swaps_what_is_seen(camera: Camera, make_car: Callable[..., Car]) -> None:
    label = label_car(camera, make_car(yaw=math.pi), [], [])
    assert list(label.visibility[LEFT_WHEELS]) == [VISIBLE, VISIBLE]
    assert list(label.visibility[RIGHT_WHEELS]) == [SELF_OCCLUDED, SELF_OCCLUDED]


def test_from_the_front_head_lamps_show_and_tail_lamps_do_not(camera: Camera, make_car: Callable[..., Car]) -> None:
    label = label_car(camera, make_car(yaw=-math.pi / 2), [], [])
    assert set(label.visibility[[4, 5]]) == {VISIBLE}
    assert set(label.visibility[[6, 7, 8]]) == {SELF_OCCLUDED}
    assert label.points_xy[4, 0] < label.points_xy[5, 0]  # a car that faces us has its right lamp on our left


def test_a_point_behind_another_car_is_occluded(camera: Camera, make_car: Callable[..., Car]) -> None:
    target, blocker = make_car(y=3.0), make_car(y=-2.0, x=2.2, style="van")
    alone = label_car(camera, target, [], [])
    label = label_car(camera, target, [blocker], [])
    assert label.visibility[0] == OCCLUDED  # the front wheel is behind the van
    assert label.visibility[2] == VISIBLE  # the rear one isn't
    assert np.array_equal(label.points_xy, alone.points_xy)  # a hidden point is still where it is
    assert np.all(label.visibility[alone.visibility == SELF_OCCLUDED] == SELF_OCCLUDED)
    assert label_car(camera, blocker, [target], []).visibility[0] == VISIBLE


def test_a_cut_out_in_front_occludes_and_one_behind_does_not(camera: Camera, make_car: Callable[..., Car]) -> None:
    car = make_car()
    (x, y), depth = camera.project(car.keypoints[0])
    picture = np.full((20, 20, 4), 255, np.uint8)
    corner = (round(x * SUPERSAMPLE) - 10, round(y * SUPERSAMPLE) - 10)
    seen = [
        label_car(camera, car, [], [Billboard(picture, corner, away)]).visibility[0]
        for away in (float(depth) - 2, float(depth) + 2)
    ]
    assert seen == [OCCLUDED, VISIBLE]
    picture[:, :, 3] = 0
    assert label_car(camera, car, [], [Billboard(picture, corner, float(depth) - 2)]).visibility[0] == VISIBLE


def test_points_outside_the_picture_keep_their_place_and_their_visibility(
    camera: Camera, make_car: Callable[..., Car]
) -> None:
    label = label_car(camera, make_car(x=-6.5), [], [])
    outside = label.points_xy[:, 0] < 0
    assert 0 < outside.sum() < 14
    assert label.visibility[2] == VISIBLE
    assert outside[2]
    assert label.box[0] == 0
    assert label.box[2] > 0


@pytest.mark.parametrize("seed", range(6))
def test_visibility_agrees_with_the_depth_buffer(camera: Camera, make_car: Callable[..., Car], seed: int) -> None:
    rng = np.random.default_rng(seed)
    styles = [style.name for style in STYLES]
    cars = [
        make_car(x, y, float(rng.uniform(0, 6.28)), styles[int(rng.integers(8))], seed)
        for x, y in ((-2.5, 1.0), (1.5, 5.0), (3.2, -0.5))
    ]
    buffer = DepthBuffer(camera)
    firsts = [buffer.add_mesh(car.mesh) for car in cars]
    height, width = buffer.owner.shape
    compared = 0
    for index, car in enumerate(cars):
        label = label_car(camera, car, cars[:index] + cars[index + 1 :], [])
        _, depth = camera.project(car.keypoints)
        at = np.round(buffer.to_buffer(label.points_xy)).astype(int)
        for (x, y), away, seen in zip(at, depth, label.visibility, strict=True):
            if not (2 <= x < width - 2 and 2 <= y < height - 2):
                continue
            drawn = 1 / np.maximum(buffer.inverse_depth[y - 2 : y + 3, x - 2 : x + 3], 1e-6)
            owner = buffer.owner[y, x]
            mine = firsts[index] <= owner < firsts[index] + len(car.mesh.panel)
            if seen == VISIBLE:  # nothing nearer fills the place
                assert drawn.max() > away - 0.25
                compared += 1
            elif drawn.max() < away - 0.3:  # well hidden: who hides it?
                assert (seen == SELF_OCCLUDED) or not mine
                compared += 1
    assert compared > 15


def test_the_text_has_one_line_a_point(camera: Camera, make_car: Callable[..., Car]) -> None:
    labels = [label_car(camera, make_car(x), [], []) for x in (-2.0, 3.0)]
    rows = [line.split(",") for line in label_lines(labels).splitlines()]
    assert len(rows) == 28
    assert [row[2] for row in rows] == [str(i) for i in range(1, 15)] * 2
    assert [row[3] for row in rows] == ["0"] * 14 + ["1"] * 14
    assert {row[4] for row in rows} <= {"1", "2", "3"}
    assert float(rows[3][0]) == pytest.approx(labels[0].points_xy[3, 0], abs=0.006)
    boxes = [[float(v) for v in line.split(",")] for line in box_lines(labels).splitlines()]
    assert [box[4] for box in boxes] == [0, 1]
    assert all(x0 < x1 and y0 < y1 for x0, y0, x1, y1, _ in boxes)
