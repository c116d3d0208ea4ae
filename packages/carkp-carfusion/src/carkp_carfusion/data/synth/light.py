"""The light of a scene."""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.types import Array


@frozen(eq=False)
class Light:
    """Sun, sky and what polished surfaces mirror. Factors of 1 show a white surface at full scale.

    Attributes
    ----------
    to_sun : float32 [3]
        Unit vector towards the sun, world frame.
    sun, ambient : float32 [3]
        Strength of the sun and of the sky: blue, green, red factors.
    zenith, horizon, ground : float32 [3]
        Colours (blue, green, red in 0..255) that polished surfaces mirror.
    """

    to_sun: Array
    sun: Array
    ambient: Array
    zenith: Array
    horizon: Array
    ground: Array

    @property
    def on_ground(self) -> Array:
        """[3] the light that a horizontal surface receives."""
        return np.asarray(self.ambient + self.sun * self.to_sun[2])

    @property
    def shadow_share(self) -> float:
        """Brightness of a horizontal surface in shadow, as a share of its brightness in the sun."""
        return float(self.ambient.mean() / self.on_ground.mean())


def make_light(rng: np.random.Generator, *, overcast: float, low_sun: float) -> Light:
    """Draw a light. ``overcast`` and ``low_sun`` are probabilities."""
    azimuth = float(rng.uniform(0, 2 * math.pi))
    low = bool(rng.random() < low_sun)
    elevation = math.radians(float(rng.uniform(18, 32) if low else rng.uniform(35, 72)))
    flat = math.cos(elevation)
    to_sun = [flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)]
    if rng.random() < overcast:
        grey = np.array([1.0, 0.99, 0.97]) * float(rng.uniform(0.78, 0.95))
        cloud = np.array([205.0, 200, 195]) * float(rng.uniform(0.8, 1.05))
        return _light(to_sun, grey * 0.16, grey, cloud, cloud * 1.08, [78, 78, 78])
    warm = np.array([0.74, 0.87, 1.0]) if low else np.array([0.93, 0.97, 1.0])
    sun = warm * float(rng.uniform(0.62, 0.85))
    ambient = np.array([0.56, 0.52, 0.48]) * float(rng.uniform(0.88, 1.15))
    zenith = np.array([196.0, 142, 84]) * float(rng.uniform(0.8, 1.15))
    horizon = [190, 205, 232] if low else [225, 215, 200]
    return _light(to_sun, sun, ambient, zenith, horizon, [70, 72, 74])


def _light(*values: object) -> Light:
    return Light(*(np.asarray(value, np.float32) for value in values))
