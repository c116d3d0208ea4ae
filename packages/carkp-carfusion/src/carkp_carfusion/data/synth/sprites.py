"""Cut-outs that stand upright and face the camera: trees, bushes, pedestrians, poles, signs, bins, boxes.

Each is a picture with a mask, its height in metres and its foot at the middle of the lower edge. A library of them
belongs to a split, so that training and test show different ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.noise import TILE_PX, rough_tile
from carkp_carfusion.data.synth.types import Array, Image, stream


@frozen(eq=False)
class Sprite:
    """An upright cut-out: BGRA picture uint8 [h, w, 4] and height in metres."""

    picture: Image
    height_m: float

    @property
    def width_m(self) -> float:
        """Width in metres."""
        return float(self.height_m * self.picture.shape[1] / self.picture.shape[0])


#: Kinds that stand where they like, and kinds that are put in front of cars.
STREET_KINDS = ("tree", "tree", "pole", "pedestrian", "sign", "bush")
OCCLUDER_KINDS = ("bush", "pole", "pedestrian", "bin", "crate", "sign", "pedestrian")


@lru_cache(maxsize=4)
def library(seed: int, split: str) -> dict[str, tuple[Sprite, ...]]:
    """The cut-outs of a split, by kind."""
    return {
        kind: tuple(make(stream(seed, split, kind, number)) for number in range(count))
        for kind, (make, count) in _makers().items()
    }


def _makers() -> dict[str, tuple[Callable[[np.random.Generator], Sprite], int]]:
    """How each kind is drawn, and how many a library holds."""
    return {
        "tree": (_tree, 8),
        "bush": (_bush, 6),
        "pedestrian": (_pedestrian, 10),
        "pole": (_pole, 4),
        "sign": (_sign, 5),
        "bin": (_bin, 4),
        "crate": (_crate, 5),
    }


def _blank(height: int, width: int) -> Image:
    return np.zeros((height, width, 4), np.uint8)


def _solid(colour: Array, factor: float = 1.0) -> tuple[float, float, float, float]:
    b, g, r = np.clip(np.asarray(colour, float) * factor, 0, 255)
    return float(b), float(g), float(r), 255.0


def _foliage(height: int, width: int, blobs: Array, colour: Array, rng: np.random.Generator) -> Image:
    """Leaves in clumps: ``blobs`` [n, 3] are centres x, y and radii in pixels."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    field = np.full((height, width), -1.0, np.float32)
    shade = np.zeros((height, width), np.float32)
    for bx, by, radius in blobs:
        inside = 1 - ((x - bx) ** 2 + (y - by) ** 2) / radius**2
        lift = 0.5 - 0.5 * (y - by) / radius + 0.2 * (x - bx) / radius
        shade = np.where(inside > field, lift, shade)
        field = np.maximum(field, inside)
    dy, dx = rng.integers(0, TILE_PX - max(height, width), 2)
    leaves = rough_tile()[dy : dy + height, dx : dx + width]
    mask = field + 0.22 * leaves > 0.1
    light = np.clip(0.45 + 0.5 * shade + 0.16 * leaves - 0.25 * (y / height), 0.15, 1.3)
    out = _blank(height, width)
    out[:, :, :3] = np.clip(light[:, :, None] * colour, 0, 255)
    out[:, :, 3] = mask * np.uint8(255)
    return out


def _green(rng: np.random.Generator) -> Array:
    return np.array([50.0, 118, 92]) * rng.uniform(0.7, 1.25) + rng.uniform(-14, 22, 3)


def _tree(rng: np.random.Generator) -> Sprite:
    height, width = 384, 288
    count = 26
    angle, radius = rng.uniform(0, 2 * math.pi, count), np.sqrt(rng.random(count))
    blobs = np.column_stack(
        [width / 2 + 0.36 * width * radius * np.cos(angle), 0.36 * height + 0.27 * height * radius * np.sin(angle),
         rng.uniform(24, 48, count)]
    )  # fmt: skip
    out = _foliage(height, width, blobs, _green(rng), rng)
    bark = np.array([52.0, 66, 80]) * rng.uniform(0.6, 1.2)
    foot = 13
    trunk = np.array(
        [[width // 2 - foot, height], [width // 2 - 7, 190], [width // 2 + 7, 190], [width // 2 + foot, height]]
    )
    layer = _blank(height, width)
    cv2.fillPoly(layer, [trunk.astype(np.int32)], _solid(bark))
    behind = (out[:, :, 3] == 0) & (layer[:, :, 3] > 0)
    out[behind] = layer[behind]
    return Sprite(out, float(rng.uniform(4.5, 8.0)))


def _bush(rng: np.random.Generator) -> Sprite:
    height, width = 160, 240
    count = 16
    blobs = np.column_stack(
        [rng.uniform(35, width - 35, count), rng.uniform(60, height - 20, count), rng.uniform(24, 40, count)]
    )
    return Sprite(_foliage(height, width, blobs, _green(rng), rng), float(rng.uniform(0.7, 1.3)))


def _pedestrian(rng: np.random.Generator) -> Sprite:
    height, width = 320, 128
    out = _blank(height, width)
    middle = width // 2
    skin = np.array([120.0, 150, 200]) * rng.uniform(0.4, 1.1)
    coat, trousers = rng.uniform(20, 220, 3), rng.uniform(20, 110, 3)
    hair = np.array([30.0, 36, 46]) * rng.uniform(0.5, 2.5)
    stride = int(rng.integers(4, 26))
    for side in (-1, 1):
        leg = np.array(
            [
                [middle + side * 2, 168],
                [middle + side * 20, 168],
                [middle + side * (stride + 9), 308],
                [middle + side * (stride - 5), 308],
            ]
        )
        cv2.fillPoly(out, [leg.astype(np.int32)], _solid(trousers, 0.85 if side < 0 else 1.0))
        cv2.ellipse(out, (middle + side * (stride + 5), 311), (14, 7), 0, 0, 360, _solid(np.full(3, 30)), -1)
        swing = int(rng.integers(4, 22))
        arm = np.array(
            [
                [middle + side * 22, 72],
                [middle + side * 32, 78],
                [middle + side * (28 + swing), 168],
                [middle + side * (17 + swing), 168],
            ]
        )
        cv2.fillPoly(out, [arm.astype(np.int32)], _solid(coat, 0.72))
        cv2.circle(out, (middle + side * (22 + swing), 173), 7, _solid(skin), -1)
    torso = np.array(
        [
            [middle - 27, 70],
            [middle - 14, 60],
            [middle + 14, 60],
            [middle + 27, 70],
            [middle + 23, 182],
            [middle - 23, 182],
        ]
    )
    cv2.fillPoly(out, [torso.astype(np.int32)], _solid(coat))
    cv2.rectangle(out, (middle + 6, 66), (middle + 22, 180), _solid(coat, 0.85), -1)
    cv2.rectangle(out, (middle - 7, 48), (middle + 7, 64), _solid(skin, 0.85), -1)
    cv2.ellipse(out, (middle, 32), (18, 23), 0, 0, 360, _solid(skin), -1)
    cv2.ellipse(out, (middle, 26), (19, 19), 0, 180, 360, _solid(hair), -1)
    return Sprite(out, float(rng.uniform(1.55, 1.92)))


def _pole(rng: np.random.Generator) -> Sprite:
    height, width = 512, 16
    out = _blank(height, width)
    tone = rng.uniform(60, 170)
    shade = np.sin(np.linspace(0.35, 2.9, width))
    out[:, :, :3] = np.clip(tone * shade, 0, 255).astype(np.uint8)[None, :, None]
    out[:, :, 3] = 255
    out[:460, :3, 3] = 0
    out[:460, -3:, 3] = 0
    return Sprite(out, float(rng.uniform(3.5, 6.5)))


def _sign(rng: np.random.Generator) -> Sprite:
    height, width = 384, 96
    out = _blank(height, width)
    cv2.rectangle(out, (45, 60), (51, height), _solid(np.full(3, 140)), -1)
    colour = np.array([(40.0, 40, 200), (200.0, 110, 30), (60.0, 200, 230), (230.0, 230, 230)][int(rng.integers(4))])
    if rng.random() < 0.5:
        cv2.circle(out, (48, 48), 44, _solid(np.full(3, 235)), -1, cv2.LINE_8)
        cv2.circle(out, (48, 48), 38, _solid(colour), -1)
        cv2.rectangle(out, (22, 40), (74, 56), _solid(np.full(3, 240)), -1)
    else:
        cv2.rectangle(out, (8, 4), (88, 96), _solid(colour), -1)
        cv2.rectangle(out, (18, 30), (78, 44), _solid(np.full(3, 245)), -1)
        cv2.rectangle(out, (18, 58), (60, 70), _solid(np.full(3, 245)), -1)
    return Sprite(out, float(rng.uniform(2.2, 2.8)))


def _bin(rng: np.random.Generator) -> Sprite:
    height, width = 192, 128
    out = _blank(height, width)
    colour = rng.uniform(30, 130, 3)
    body = np.array([[10, 40], [118, 40], [106, 188], [22, 188]])
    cv2.fillPoly(out, [body.astype(np.int32)], _solid(colour))
    for x in range(28, 110, 18):
        cv2.line(out, (x, 48), (x, 184), _solid(colour, 0.8), 3)
    cv2.rectangle(out, (4, 22), (124, 42), _solid(colour, 1.25), -1)
    return Sprite(out, float(rng.uniform(0.9, 1.2)))


def _crate(rng: np.random.Generator) -> Sprite:
    height, width = 160, 200
    out = _blank(height, width)
    colour = np.array([90.0, 140, 180]) * rng.uniform(0.6, 1.2) if rng.random() < 0.6 else rng.uniform(60, 200, 3)
    cv2.fillPoly(out, [np.array([[2, 40], [130, 40], [130, 159], [2, 159]], np.int32)], _solid(colour))
    cv2.fillPoly(out, [np.array([[130, 40], [198, 20], [198, 140], [130, 159]], np.int32)], _solid(colour, 0.68))
    cv2.fillPoly(out, [np.array([[2, 40], [70, 20], [198, 20], [130, 40]], np.int32)], _solid(colour, 1.22))
    cv2.line(out, (66, 40), (66, 159), _solid(colour, 0.8), 5)
    return Sprite(out, float(rng.uniform(0.6, 1.1)))
