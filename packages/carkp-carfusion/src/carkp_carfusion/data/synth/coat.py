"""A car's coat: paint, glass, lamps, grille, seams and wheels, drawn flat and projected onto the body.

The coat is one picture (an atlas) of six panels: side, front, rear, top, rubber and rim. A quad of the body takes its
colour from its panel by a parallel projection along the panel's axis, so both sides share one drawing and the paint
always sits where the keypoints are. The fourth channel is the gloss.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.body import Body
from carkp_carfusion.data.synth.paintwork import (
    RIM_PX_PER_M,
    RIM_TILE_PX,
    paint_front,
    paint_rear,
    paint_rim,
    paint_side,
    paint_top,
)
from carkp_carfusion.data.synth.panel import MATTE, PAINT, PX_PER_M, Panel
from carkp_carfusion.data.synth.shapes import BodyShape, wheel_hubs
from carkp_carfusion.data.synth.types import Array, Colour, Image

#: Paint of the street: blue, green, red; the greys are the most frequent.
PAINTS: tuple[Colour, ...] = (
    (232, 234, 235), (214, 216, 218), (168, 170, 172), (120, 122, 124), (72, 74, 76), (34, 34, 36), (26, 24, 26),
    (40, 36, 160), (30, 30, 196), (150, 84, 30), (110, 52, 20), (186, 132, 62), (70, 104, 34), (44, 74, 40),
    (40, 160, 214), (52, 120, 210), (190, 208, 222), (46, 60, 96), (96, 40, 84), (150, 148, 88),
)  # fmt: skip


@frozen(eq=False)
class Coat:
    """The atlas and how the car's space maps into it.

    Attributes
    ----------
    atlas : uint8 [H, W, 4]
        Blue, green, red, gloss.
    maps : float32 [9, 2, 4]
        For each panel: ``(u, v) = map @ (x, y, z, 1)`` in atlas pixels.
    """

    atlas: Image
    maps: Array

    def reduced(self, px_per_m: float) -> Coat:
        """The coat for a distance at which a metre takes ``px_per_m`` pixels: halved while it is finer than that."""
        halvings = int(np.clip(np.floor(np.log2(PX_PER_M / px_per_m)), 0, 4))
        if halvings == 0:
            return self
        share = 0.5**halvings
        atlas = cv2.resize(self.atlas, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        maps = self.maps * np.float32(share)
        maps[:, :, 3] += np.float32(0.5 * share - 0.5)
        return Coat(atlas, maps)


def dress(body: Body, rng: np.random.Generator, paints: Sequence[Colour] = PAINTS) -> Coat:
    """Paint a body in one of ``paints``."""
    base = np.array(paints[int(rng.integers(len(paints)))], float) * rng.uniform(0.9, 1.1) + rng.uniform(-8, 8, 3)
    paint: Colour = tuple(float(v) for v in np.clip(base, 14, 245))  # type: ignore[assignment]
    tint = float(rng.uniform(18, 62))
    glass: Colour = (tint * 1.06, tint * 1.02, tint)
    shape = body.shape
    half_l, half_w, high = shape.length / 2, shape.width / 2, shape.height + 0.05
    base4 = (*paint, PAINT)
    side = Panel((-half_l, half_l), (0.0, high), base4)
    front = Panel((-half_w, half_w), (0.0, high), base4)
    rear = Panel((-half_w, half_w), (0.0, high), base4)
    top = Panel((-half_l, half_l), (-half_w, half_w), base4)
    paint_side(side, body, paint, glass, rng)
    paint_front(front, body, paint, glass, rng)
    paint_rear(rear, body, paint, glass, rng)
    paint_top(top, body, paint, rng)
    rim = paint_rim(shape, rng)
    return _pack(shape, [panel.image for panel in (side, front, rear, top)], rim)


def _pack(shape: BodyShape, panels: list[Image], rim: Image) -> Coat:
    half_l, half_w, high = shape.length / 2, shape.width / 2, shape.height + 0.05
    rows: list[int] = []
    rubber = np.zeros((16, 16, 4), np.uint8)
    rubber[:] = (26, 25, 25, MATTE)
    images = [*panels, rubber, rim]
    width = max(image.shape[1] for image in images)
    atlas = np.zeros((sum(image.shape[0] for image in images), width, 4), np.uint8)
    row = 0
    for image in images:
        rows.append(row)
        atlas[row : row + image.shape[0], : image.shape[1]] = image
        row += image.shape[0]
    s = PX_PER_M
    maps = np.zeros((9, 2, 4), np.float32)
    maps[0] = [[s, 0, 0, half_l * s], [0, 0, -s, high * s + rows[0]]]
    maps[1] = [[0, s, 0, half_w * s], [0, 0, -s, high * s + rows[1]]]
    maps[2] = [[0, s, 0, half_w * s], [0, 0, -s, high * s + rows[2]]]
    maps[3] = [[s, 0, 0, half_l * s], [0, -s, 0, half_w * s + rows[3]]]
    maps[4] = [[0, 0, 0, 8], [0, 0, 0, rows[4] + 8]]
    s, middle = RIM_PX_PER_M, RIM_TILE_PX / 2
    for i, hub in enumerate(wheel_hubs(shape)):
        maps[5 + i] = [[s, 0, 0, middle - hub[0] * s], [0, 0, -s, middle + hub[2] * s + rows[5]]]
    return Coat(atlas, maps)
