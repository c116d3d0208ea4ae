"""How hard the generated frames are: named settings, each a plain value.

A range is (low, high) and is drawn from uniformly, once per frame unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

Range = tuple[float, float]


@frozen
class Difficulty:
    """What varies, and how far.

    Attributes
    ----------
    name : str
    cars : (int, int)
        Cars to a frame that the placement aims for.
    apparent_length : Range
        A middling car's length as a share of the picture's width, per car: what sets distances.
    max_overlap : float
        Share of a car's box that cars in front of it may cover.
    truncation : float
        Probability, per car, that it may stick out of the picture.
    occluders : (int, int)
        Poles, bushes, pedestrians, boxes put in front of cars, per frame.
    street_objects : (int, int)
        Trees, lamp posts and passers-by that stand where they like.
    min_visible : float
        Cars that show less than this share of themselves get no label.
    turning : float
        Probability, per car, of a yaw that doesn't follow its lane or bay.
    overcast, low_sun : float
        Probabilities of these lights.
    exposure : Range
        Brightness of the picture; 1 is well exposed.
    noise : Range
        Standard deviation of the sensor noise, grey levels.
    blur_px : Range
        Sigma of the lens blur at 1280 pixels of width.
    motion_px : Range
        Length of the motion blur at 1280 pixels of width.
    jpeg_quality : Range
    body_variation : float
        Spread of proportions within a body style, see `body.vary`.
    """

    name: str
    cars: tuple[int, int]
    apparent_length: Range
    max_overlap: float
    truncation: float
    occluders: tuple[int, int]
    street_objects: tuple[int, int]
    min_visible: float
    turning: float
    overcast: float
    low_sun: float
    exposure: Range
    noise: Range
    blur_px: Range
    motion_px: Range
    jpeg_quality: Range
    body_variation: float


EASY = Difficulty(
    name="easy",
    cars=(4, 7),
    apparent_length=(0.17, 0.40),
    max_overlap=0.12,
    truncation=0.0,
    occluders=(0, 1),
    street_objects=(2, 5),
    min_visible=0.6,
    turning=0.15,
    overcast=0.3,
    low_sun=0.1,
    exposure=(0.9, 1.12),
    noise=(0.5, 3.0),
    blur_px=(0.0, 0.6),
    motion_px=(0.0, 0.0),
    jpeg_quality=(85, 95),
    body_variation=0.7,
)
NORMAL = Difficulty(
    name="normal",
    cars=(4, 8),
    apparent_length=(0.09, 0.42),
    max_overlap=0.4,
    truncation=0.2,
    occluders=(1, 4),
    street_objects=(3, 8),
    min_visible=0.3,
    turning=0.2,
    overcast=0.35,
    low_sun=0.25,
    exposure=(0.65, 1.2),
    noise=(1.0, 6.0),
    blur_px=(0.2, 1.1),
    motion_px=(0.0, 3.0),
    jpeg_quality=(65, 92),
    body_variation=1.0,
)
HARD = Difficulty(
    name="hard",
    cars=(6, 12),
    apparent_length=(0.05, 0.5),
    max_overlap=0.7,
    truncation=0.4,
    occluders=(3, 8),
    street_objects=(4, 12),
    min_visible=0.15,
    turning=0.3,
    overcast=0.4,
    low_sun=0.4,
    exposure=(0.25, 1.3),
    noise=(2.0, 12.0),
    blur_px=(0.3, 1.6),
    motion_px=(0.0, 7.0),
    jpeg_quality=(40, 88),
    body_variation=1.3,
)

DIFFICULTIES: Mapping[str, Difficulty] = MappingProxyType({setting.name: setting for setting in (EASY, NORMAL, HARD)})
