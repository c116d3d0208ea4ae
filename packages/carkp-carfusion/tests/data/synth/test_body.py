from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.synth.body import build
from carkp_carfusion.data.synth.mesh import first_hit
from carkp_carfusion.data.synth.shapes import STYLES, BodyShape, vary

EXHAUST, CENTRE = 8, 13
RIGHTS, LEFTS = [0, 2, 4, 6, 9, 11], [1, 3, 5, 7, 10, 12]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_pairs_mirror_each_other_and_the_right_one_comes_first(style: BodyShape) -> None:
    points = build(style, np.random.default_rng(1)).keypoints
    assert points.shape == (14, 3)
    assert np.all(points[RIGHTS, 1] < 0)  # y points to the driver's left
    assert np.allclose(points[RIGHTS] * [1, -1, 1], points[LEFTS], atol=1e-3)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_points_sit_where_their_names_say(style: BodyShape) -> None:
    points = build(style, np.random.default_rng(2)).keypoints
    front_wheel, rear_wheel, head, tail, roof_front, roof_rear = points[[0, 2, 4, 6, 9, 11]]
    assert head[0] > front_wheel[0] > roof_front[0] > roof_rear[0] > tail[0]
    assert front_wheel[0] > rear_wheel[0] > tail[0]
    assert front_wheel[2] == rear_wheel[2] == pytest.approx(style.wheel_radius)
    assert min(roof_front[2], roof_rear[2]) > 0.93 * style.height
    assert points[EXHAUST, 2] < tail[2]
    assert abs(points[EXHAUST, 0] - tail[0]) < 0.3
    assert np.allclose(points[CENTRE], [0, 0, style.height / 2])


@settings(max_examples=16, deadline=None)
@given(style=st.sampled_from(STYLES), seed=st.integers(0, 10_000))
def test_points_lie_on_the_surface_and_the_centre_within(style: BodyShape, seed: int) -> None:
    rng = np.random.default_rng(seed)
    body = build(vary(style, rng, 1.3), rng)
    for index, point in enumerate(body.keypoints):
        if index == CENTRE:
            continue
        outside = point * [3, 3, 1] + [0, 0, 2.5 if index >= 9 else 0.3]
        if index == EXHAUST or index in (4, 5, 6, 7):
            outside = point + np.array([np.sign(point[0]) * 5, 0, 0])
        reach = first_hit(body.mesh.triangles, outside, (point - outside)[None])[0]
        assert abs(1 - reach) * np.linalg.norm(point - outside) < 0.09, index
    everywhere = np.random.default_rng(0).normal(size=(40, 3)) * [1, 1, 0] + [0, 0, 0.3]
    assert np.isfinite(first_hit(body.mesh.triangles, body.keypoints[CENTRE], everywhere)).all()


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_bodies_have_their_measures_and_stand_on_the_ground(style: BodyShape) -> None:
    corners = build(style, np.random.default_rng(3)).mesh.corners.reshape(-1, 3)
    assert np.ptp(corners[:, 0]) == pytest.approx(style.length, abs=0.09)
    assert corners[:, 2].min() == pytest.approx(0, abs=0.02)
    assert corners[:, 2].max() == pytest.approx(style.height, abs=0.06)
