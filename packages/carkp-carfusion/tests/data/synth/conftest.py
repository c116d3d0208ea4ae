"""A camera, cars and a plain place to stand them in."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from carkp_carfusion.data.synth.body import build
from carkp_carfusion.data.synth.camera import Camera, look
from carkp_carfusion.data.synth.coat import dress
from carkp_carfusion.data.synth.scene import Car, stand
from carkp_carfusion.data.synth.shapes import STYLES

MakeCar = Callable[..., Car]


@pytest.fixture
def camera() -> Camera:
    """Looks along +y from 14 m, slightly down: a car at the origin with yaw 0 shows its right side."""
    return look((640, 360), 50.0, np.array([0.0, -14.0, 1.6]), yaw=math.pi / 2, pitch=math.radians(4))


@pytest.fixture
def make_car() -> MakeCar:
    """``make_car(x, y, yaw, style="sedan", seed=0)``."""
    styles = {style.name: style for style in STYLES}

    def make(x: float = 0.0, y: float = 0.0, yaw: float = 0.0, style: str = "sedan", seed: int = 0) -> Car:
        rng = np.random.default_rng(seed)
        body = build(styles[style], rng)
        return stand(body, dress(body, rng), x, y, yaw)

    return make
