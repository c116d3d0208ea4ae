from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.synth.shapes import STYLES, BodyShape, deck_height, greenhouse_rings, half_width, vary


def check(shape: BodyShape) -> None:
    order = [0, shape.front_axle, shape.rear_axle, 1]
    assert order == sorted(order)
    assert 0 < shape.cowl < shape.roof_front < shape.roof_rear < shape.tail < 1
    assert shape.clearance < 2 * shape.wheel_radius < shape.shoulder_z < shape.height
    assert shape.nose_z < shape.height


@settings(max_examples=40, deadline=None)
@given(style=st.sampled_from(STYLES), seed=st.integers(0, 10_000), amount=st.floats(0, 1.3))
def test_varied_shapes_stay_cars(style: BodyShape, seed: int, amount: float) -> None:
    shape = vary(style, np.random.default_rng(seed), amount)
    check(shape)
    assert shape.name == style.name
    stations = np.linspace(0, 1, 50)
    assert half_width(shape, stations).max() == pytest.approx(shape.width / 2)
    assert deck_height(shape, stations).max() < shape.height


def test_no_variation_gives_the_style_itself() -> None:
    plain = [vary(style, np.random.default_rng(0), 0.0) for style in STYLES]
    for shape, style in zip(plain, STYLES, strict=True):
        assert (shape.length, shape.height, shape.cowl) == (style.length, style.height, style.cowl)


def test_there_are_eight_distinct_styles() -> None:
    assert len({style.name for style in STYLES}) == len(STYLES) == 8
    for style in STYLES:
        check(style)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_greenhouses_are_symmetric_and_narrow_upwards(style: BodyShape) -> None:
    rings = greenhouse_rings(style)
    assert rings.shape[1:] == (18, 3)
    mirrored = {tuple(point) for point in (rings[-1] * [1, -1, 1]).round(6)}
    assert mirrored == {tuple(point) for point in rings[-1].round(6)}
    assert np.ptp(rings[-1][:, 1]) < np.ptp(rings[0][:, 1])
    assert np.all(np.diff(rings[:, 0, 2]) > 0)
