"""The ground: asphalt, pavements, kerbs and painted marks, projected polygon by polygon.

Shapes: ``H W`` the picture, ``V`` corners of a polygon.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.place import REACH_M, Place, bay_rows
from carkp_carfusion.data.synth.types import Array, Colour, Image

#: Where the ground ends.
FAR_M = 400.0
_SHIFT = 4
_WHITE: Colour = (220.0, 222.0, 222.0)


def slab(x0: float, x1: float, y0: float, y1: float) -> Array:
    """[4, 3] a rectangle on the ground."""
    return np.array([[x0, y0, 0.0], [x1, y0, 0.0], [x1, y1, 0.0], [x0, y1, 0.0]])


def fill(camera: Camera, picture: Image, polygon: Array, colour: Colour | int) -> None:
    """Fill the visible part of a convex world polygon [V, 3], in place."""
    pixels = camera.clip(polygon)
    if len(pixels):
        fixed = np.round(pixels * (1 << _SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(picture, fixed, colour, cv2.LINE_AA, _SHIFT)


def paint_ground(camera: Camera, place: Place) -> Image:
    """Albedo of the ground, uint8 [H, W, 3]; what lies above the horizon means nothing."""
    width, height = camera.size_wh
    canvas: Image = np.empty((height, width, 3), np.uint8)
    canvas[:] = np.array(place.verge, np.uint8)
    half, edge = place.road_half, place.road_half + place.pavement
    lot = place.kind == "lot"
    roads = [_Road(camera, canvas, turned) for turned in ((False, True) if place.kind == "crossing" else (False,))]
    for margin, colour in ((edge, place.paving), (half + 0.16, _scaled(place.paving, 1.16)), (half, place.asphalt)):
        for road in roads:
            reach = margin if lot else FAR_M
            road.strip((-reach, reach), (-margin, margin), colour)
    for road in roads:
        _gutters(place, road)
        if lot:
            _bay_marks(place, road)
        else:
            _lane_marks(place, road)
    return canvas


@frozen(eq=False)
class _Road:
    """A brush whose first axis runs along a road: x, or y for a ``turned`` one."""

    camera: Camera
    canvas: Image
    turned: bool

    def strip(self, along: Sequence[float], across: Sequence[float], colour: Colour) -> None:
        """Fill a rectangle; either range may be given backwards."""
        (x0, x1), (y0, y1) = sorted(along), sorted(across)
        corners = (y0, y1, x0, x1) if self.turned else (x0, x1, y0, y1)
        fill(self.camera, self.canvas, slab(*corners), colour)


def _scaled(colour: Colour, share: float) -> Colour:
    b, g, r = (min(255.0, share * v) for v in colour)
    return b, g, r


def _gutters(place: Place, road: _Road) -> None:
    """A darker strip along the kerbs; at a crossing it stops where the other road begins."""
    half = place.road_half
    start, reach = (half if place.kind == "crossing" else 0.0), (half if place.kind == "lot" else REACH_M)
    for side in (-1, 1):
        for end in (-1, 1):
            road.strip((end * start, end * reach), (side * half, side * (half - 0.3)), _scaled(place.asphalt, 0.72))


def _lane_marks(place: Place, road: _Road) -> None:
    """Double centre line, dashes between lanes, edge of the parking strip; at a crossing stop lines and zebras."""
    half = place.road_half
    stop = half + 1.5 if place.kind == "crossing" else 0.0
    lanes = np.unique(np.abs(place.lanes_y))
    dashes = [float(lanes[1] - lanes[0])] if len(lanes) > 2 else []
    for end in (-1, 1):
        reach = end * REACH_M
        for y in (-0.14, 0.14):
            road.strip((end * (stop + 3.5), reach), (y - 0.06, y + 0.06), place.marking)
        for y in [side * dash for dash in dashes for side in (-1, 1)]:
            for start in np.arange(stop + 5, REACH_M, 9.0):
                road.strip((end * start, end * (start + 3)), (y - 0.06, y + 0.06), _WHITE)
        for y in (2.6 - half, half - 2.6):
            road.strip((end * (stop + 6), reach), (y - 0.04, y + 0.04), _WHITE)
        if stop:
            for y in np.arange(0.5 - half, half - 0.4, 1.1):
                road.strip((end * stop, end * (stop + 2.6)), (y, y + 0.5), _WHITE)
            road.strip((end * (stop + 3.3), end * (stop + 3.7)), (end * 0.2, end * (half - 0.4)), _WHITE)


def _bay_marks(place: Place, road: _Road) -> None:
    half = place.road_half - 2
    last = np.floor(half / 2.8)
    for row in bay_rows(place):
        road.strip((-half, half), (row - 0.04, row + 0.04), place.marking)
        for x in np.arange(-last, last + 1) * 2.8 + 1.4:
            road.strip((x - 0.05, x + 0.05), (row - 2.6, row + 2.6), place.marking)
