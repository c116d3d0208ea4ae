from __future__ import annotations

import numpy as np
import pytest

from carkp_carfusion.data.synth.body import FRONT, REAR, WHEELS, build
from carkp_carfusion.data.synth.coat import Coat, dress
from carkp_carfusion.data.synth.shapes import STYLES, BodyShape
from carkp_carfusion.data.synth.types import Array


def texel(coat: Coat, panel: int, point: Array) -> Array:
    u, v = coat.maps[panel] @ [*point, 1.0]
    return coat.atlas[round(float(v)), round(float(u))].astype(float)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_lamps_are_painted_where_their_keypoints_are(style: BodyShape) -> None:
    rng = np.random.default_rng(4)
    body = build(style, rng)
    coat = dress(body, rng)
    for index in (4, 5):
        assert texel(coat, FRONT, body.keypoints[index])[:3].min() > 170  # near white
    for index in (6, 7):
        blue, green, red, _ = texel(coat, REAR, body.keypoints[index])
        assert red > 100
        assert red > 1.1 * max(blue, green)


def test_the_exhaust_is_a_dark_hole() -> None:
    rng = np.random.default_rng(5)
    body = build(STYLES[0], rng)
    assert texel(dress(body, rng), REAR, body.keypoints[8])[:3].max() < 60


def test_a_rim_lies_round_its_hub() -> None:
    rng = np.random.default_rng(6)
    body = build(STYLES[1], rng)
    coat = dress(body, rng)
    for wheel, hub in zip(WHEELS, body.keypoints[:4], strict=True):
        cap = texel(coat, wheel, hub)
        tyre = texel(coat, wheel, hub + np.array([0, 0, 0.93 * body.shape.wheel_radius]))
        assert cap[:3].mean() > 90 > 45 > tyre[:3].mean()
        assert tyre[3] == 0


def test_a_reduced_coat_shows_the_same_colours() -> None:
    rng = np.random.default_rng(7)
    body = build(STYLES[0], rng)
    coat = dress(body, rng)
    assert coat.reduced(400.0) is coat
    small = coat.reduced(25.0)
    assert small.atlas.shape[0] == pytest.approx(coat.atlas.shape[0] / 4, abs=1)
    door = np.array([0.2, -0.9, 0.55])
    assert np.abs(texel(small, 0, door) - texel(coat, 0, door)).max() < 40


def test_paint_comes_from_the_given_palette() -> None:
    rng = np.random.default_rng(8)
    body = build(STYLES[0], rng)
    red = dress(body, rng, paints=[(20.0, 20.0, 200.0)])
    blue, green, paint_red, _ = texel(red, 3, np.array([2.0, 0.0, 0.7]))
    assert paint_red > 3 * max(blue, green)
