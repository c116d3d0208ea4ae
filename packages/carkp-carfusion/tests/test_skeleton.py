from __future__ import annotations

import json

import pytest

from carkp_carfusion.skeleton import CARFUSION, CARFUSION_RAW_IDS, Skeleton, plain_skeleton
from carkp_core.errors import DataError


def test_carfusion_keeps_all_but_exhaust_and_centre_in_order():
    assert CARFUSION.raw_ids == tuple(raw_id for raw_id in CARFUSION_RAW_IDS if raw_id not in (9, 14))
    assert len(CARFUSION) == 12
    assert CARFUSION.index_of_raw_id()[10] == 8


def test_carfusion_pairs_exchange_left_and_right():
    for index, other in enumerate(CARFUSION.flip_index):
        name = CARFUSION.keypoints[index]
        swapped = name.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left")
        assert CARFUSION.keypoints[other] == swapped


def test_every_carfusion_point_is_on_an_edge():
    assert {index for edge in CARFUSION.edges for index in edge} == set(range(12))


def test_flipping_twice_is_the_identity():
    order = CARFUSION.flip_index
    assert tuple(order[order[index]] for index in range(12)) == tuple(range(12))


def test_json_round_trip():
    assert Skeleton.from_json(json.loads(json.dumps(CARFUSION.to_json()))) == CARFUSION


def test_a_plain_skeleton_has_names_and_colours():
    skeleton = plain_skeleton(20)
    assert len(skeleton) == 20
    assert skeleton.flip_index == tuple(range(20))
    assert len(skeleton.colour(19)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": ()}, "distinct keypoint names"),
        ({"keypoints": ("a", "a")}, "distinct keypoint names"),
        ({"flip_pairs": ((0, 1), (1, 2))}, "two flip pairs"),
        ({"edges": ((0, 3),)}, "must lie in 0..2"),
        ({"colours": ((1, 2, 3),)}, "3 keypoints, but 1 colours"),
        ({"colours": ((1, 2, 300),) * 3}, "RGB in 0..255"),
        ({"raw_ids": (1, 1, 2)}, "share a raw id"),
    ],
)
def test_an_unsound_skeleton_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Skeleton(**{"name": "s", "keypoints": ("a", "b", "c"), **changes})


@pytest.mark.parametrize("value", [[], None, {"name": "x"}, {"name": "x", "keypoints": ["a"], "edges": [[0, 5]]}])
def test_foreign_json_is_refused_with_its_place(value: object):
    with pytest.raises(DataError, match=r"here\.json: not a skeleton"):
        Skeleton.from_json(value, where="here.json")
