from __future__ import annotations

import numpy as np
import pytest

from carkp_carfusion.data.synth.place import (
    KINDS,
    Block,
    camera_site,
    candidate_poses,
    hidden_by_blocks,
    make_place,
)

PLACES = {kind: make_place(0, "train", kind, number) for number, kind in enumerate(KINDS)}


@pytest.mark.parametrize("kind", KINDS)
def test_cars_and_cameras_keep_out_of_buildings(kind: str) -> None:
    place = PLACES[kind]
    rng = np.random.default_rng(0)
    poses = candidate_poses(place, rng, 500, 0.2)
    sites = np.array([camera_site(place, rng)[:2] for _ in range(100)])
    for block in place.blocks:
        for points in (poses[:, :2], sites):
            assert not ((points > block.low_xy) & (points < block.high_xy)).all(axis=1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_cars_stand_on_the_road(kind: str) -> None:
    place = PLACES[kind]
    x, y, _ = np.abs(candidate_poses(place, np.random.default_rng(1), 400, 0.0)).T
    half = place.road_half
    on_road = {"street": y < half, "crossing": np.minimum(x, y) < half, "lot": np.maximum(x, y) < half}[kind]
    assert on_road.all()


def test_traffic_keeps_to_the_right() -> None:
    _, y, yaw = candidate_poses(PLACES["street"], np.random.default_rng(2), 400, 0.0).T
    assert np.all((np.cos(yaw) > 0) == (y < 0))


def test_a_building_hides_what_is_behind_and_in_it() -> None:
    grey = (100.0, 100.0, 100.0)
    block = Block((4.0, -2.0), (6.0, 2.0), 8.0, grey, grey, 3.0, 2.0, False)
    place = PLACES["lot"]
    alone = type(place)(
        **{**{name: getattr(place, name) for name in place.__slots__ if name != "__weakref__"}, "blocks": (block,)}
    )
    targets = np.array([[10.0, 0.5], [5.0, 0.0], [3.0, 0.0], [10.0, 9.0], [-5.0, 0.0]])
    assert list(hidden_by_blocks(alone, np.array([0.0, 0.1]), targets)) == [True, True, False, False, False]


def test_sequences_and_splits_are_different_places() -> None:
    keys = [("train", "a"), ("train", "b"), ("test", "a")]
    places = [make_place(0, split, name, 0) for split, name in keys]
    assert len({place.paints for place in places}) == 3
    assert len({place.road_half for place in places}) == 3
    assert make_place(0, "train", "a", 0).paints == places[0].paints
