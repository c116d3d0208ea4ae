from __future__ import annotations

import math

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.synth.camera import look
from carkp_carfusion.data.synth.difficulty import EASY, HARD
from carkp_carfusion.data.synth.place import make_place
from carkp_carfusion.data.synth.placement import choose_spots, footprint, ground_overlap

LOT = make_place(1, "train", "lot", 2)
CAMERA = look((640, 360), 55, np.array([-18.0, 0, 2.2]), yaw=0.0, pitch=0.12)


@pytest.mark.parametrize("seed", range(5))
def test_easy_spots_keep_their_promises(seed: int) -> None:
    spots = choose_spots(CAMERA, LOT, EASY, 6, np.random.default_rng(seed))
    assert spots
    for spot in spots:
        assert np.all(spot.box[:2] > 0)
        assert np.all(spot.box[2:] < [640, 360])
        for other in spots:
            if other is not spot and other.depth < spot.depth:
                low, high = np.maximum(spot.box[:2], other.box[:2]), np.minimum(spot.box[2:], other.box[2:])
                shared = np.maximum(high - low, 0).prod() / (spot.box[2:] - spot.box[:2]).prod()
                assert shared <= EASY.max_overlap + 1e-9


def test_truncation_lets_cars_stick_out() -> None:
    always = evolve(HARD, truncation=1.0, apparent_length=(0.2, 0.6))
    boxes = [s.box for seed in range(12) for s in choose_spots(CAMERA, LOT, always, 8, np.random.default_rng(seed))]
    out = [np.any(box[:2] < 0) or box[2] > 640 or box[3] > 360 for box in boxes]
    assert 0 < sum(out) < len(out)


def test_never_more_than_wanted() -> None:
    assert len(choose_spots(CAMERA, LOT, HARD, 2, np.random.default_rng(0))) == 2


@settings(max_examples=40, deadline=None)
@given(x=st.floats(-6, 6), y=st.floats(-6, 6), yaw=st.floats(-math.pi, math.pi), other_yaw=st.floats(-math.pi, math.pi))
def test_rectangles_overlap_when_one_holds_a_point_of_the_other(
    x: float, y: float, yaw: float, other_yaw: float
) -> None:
    a = footprint(4.5, 1.8, np.array([0.0, 0.0, yaw]), margin=0.0)
    b = footprint(4.5, 1.8, np.array([x, y, other_yaw]), margin=0.0)
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 25), np.linspace(0, 1, 25)), axis=-1).reshape(-1, 2)
    points = b[0] + grid[:, :1] * (b[1] - b[0]) + grid[:, 1:] * (b[3] - b[0])
    c, s = math.cos(yaw), math.sin(yaw)
    own = points @ np.array([[c, -s], [s, c]])
    if np.any((np.abs(own) < np.array([2.25, 0.9]) - 1e-6).all(axis=1)):
        assert ground_overlap(a, b)
    assert ground_overlap(a, b) == ground_overlap(b, a)
    if math.hypot(x, y) > 2 * math.hypot(2.25, 0.9):
        assert not ground_overlap(a, b)
