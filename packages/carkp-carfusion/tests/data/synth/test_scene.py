from __future__ import annotations

import numpy as np
import pytest

from carkp_carfusion.data.synth.difficulty import DIFFICULTIES
from carkp_carfusion.data.synth.place import make_place
from carkp_carfusion.data.synth.placement import footprint, ground_overlap
from carkp_carfusion.data.synth.scene import Scene, make_scene
from carkp_carfusion.data.synth.sprites import library
from carkp_carfusion.data.synth.types import stream


def scene(difficulty: str, number: int) -> Scene:
    place = make_place(0, "train", f"s{number}", number)
    return make_scene(place, (640, 360), DIFFICULTIES[difficulty], library(0, "train"), stream(difficulty, number))


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_no_car_stands_in_another_or_in_a_thing_or_at_the_camera(difficulty: str) -> None:
    for number in range(6):
        drawn = scene(difficulty, number)
        grounds = []
        for car in drawn.cars:
            yaw = np.arctan2(car.rotation[1, 0], car.rotation[0, 0])
            pose = np.array([car.offset[0], car.offset[1], yaw])
            grounds.append(footprint(car.body.shape.length, car.body.shape.width, pose, margin=0.0))
            assert drawn.camera.project(car.mesh.corners)[1].min() > 1.0
        for first in range(len(grounds)):
            for second in range(first):
                assert not ground_overlap(grounds[first], grounds[second])
        for thing in drawn.things:
            for car in drawn.cars:
                own = (thing.foot - car.offset) @ car.rotation
                inside = abs(own[0]) < car.body.shape.length / 2 and abs(own[1]) < car.body.shape.width / 2
                assert not inside


def test_a_scene_repeats_itself() -> None:
    first, second = scene("hard", 1), scene("hard", 1)
    assert [car.body.shape for car in first.cars] == [car.body.shape for car in second.cars]
    for one, other in zip(first.cars, second.cars, strict=True):
        assert np.array_equal(one.keypoints, other.keypoints)


def test_yaws_come_from_all_round() -> None:
    seen = []
    for number in range(24):
        drawn = scene("normal", number)
        forward = drawn.camera.rotation[2]
        for car in drawn.cars:
            heading = np.arctan2(
                *(car.rotation[:2, 0] @ np.array([[forward[1], forward[0]], [-forward[0], forward[1]]]))
            )
            seen.append(heading)
    share = np.histogram(seen, bins=8, range=(-np.pi, np.pi))[0] / len(seen)
    assert share.min() > 0.02
