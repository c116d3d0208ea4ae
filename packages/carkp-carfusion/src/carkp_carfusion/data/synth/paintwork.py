"""What is drawn on each panel of a car: windows, seams, lamps, grille, plates, wheels.

All places are in metres of the car's frame, so what is drawn lies where the keypoints are.
"""

from __future__ import annotations

import cv2
import numpy as np

from carkp_carfusion.data.synth.body import Body
from carkp_carfusion.data.synth.panel import GLASS, MATTE, METAL, PAINT, Panel
from carkp_carfusion.data.synth.shapes import BodyShape, greenhouse_rings, wheel_hubs
from carkp_carfusion.data.synth.types import Array, Colour, Image

RIM_PX_PER_M = 180.0
RIM_TILE_PX = 176
_DARK: Colour = (24, 23, 22)


def _darker(paint: Colour, share: float) -> Colour:
    return (paint[0] * share, paint[1] * share, paint[2] * share)


def paint_side(panel: Panel, body: Body, paint: Colour, glass: Colour, rng: np.random.Generator) -> None:
    """Sill, windows, doors, arches and the lamps that wrap round the ends; both sides share it."""
    shape = body.shape
    half_l = shape.length / 2
    trim = float(rng.uniform(0.0, 0.14))
    sill = shape.clearance + 0.08 + (trim if shape.name in ("suv", "pickup") else 0.3 * trim)
    panel.poly([(-half_l, 0), (half_l, 0), (half_l, sill), (-half_l, sill)], (34, 33, 32), 30)
    _side_windows(panel, shape, glass, paint, rng)
    _doors(panel, shape, paint, rng)
    for hub in wheel_hubs(shape)[::2]:
        x, radius = float(hub[0]), shape.wheel_radius
        lip = radius + 0.075
        if trim > 0.09 and shape.name in ("suv", "pickup"):
            panel.ellipse((x, float(hub[2])), (lip + 0.06, lip + 0.06), (38, 37, 36), 20)
        else:
            panel.ellipse((x, float(hub[2])), (lip + 0.025, lip + 0.025), _darker(paint, 0.8), PAINT)
        panel.ellipse((x, float(hub[2])), (lip, lip), (12, 12, 12), MATTE)
    lamps = body.lamps
    wrap = float(rng.uniform(0.2, 0.34))
    z, h = lamps.head_yz[1], lamps.head_half[1]
    panel.poly(
        [(half_l, z - h), (half_l, z + h), (half_l - wrap, z + h * 0.9), (half_l - wrap * 0.5, z - h * 0.7)],
        (214, 226, 230),
        METAL,
    )
    panel.poly(
        [(half_l - wrap * 0.8, z + h * 0.7), (half_l - wrap * 0.5, z + h * 0.7), (half_l - wrap * 0.45, z - h * 0.3)],
        (30, 130, 235),
        METAL,
    )
    z, h = lamps.tail_yz[1], lamps.tail_half[1]
    panel.poly(
        [(-half_l, z - h), (-half_l, z + h), (-half_l + wrap * 0.75, z + h * 0.8), (-half_l + wrap * 0.7, z - h * 0.7)],
        (24, 20, 176),
        METAL,
    )
    for end in (-1, 1):
        x = end * (half_l - 0.33)
        top = (shape.nose_z if end > 0 else shape.deck_z) - 0.24
        panel.line([(x, sill), (x - end * 0.03, top)], _darker(paint, 0.45), 0.012, MATTE)


def _side_windows(panel: Panel, shape: BodyShape, glass: Colour, paint: Colour, rng: np.random.Generator) -> None:
    rings = greenhouse_rings(shape)
    low_front, high_front = rings[0][6], rings[-1][6]
    low_rear, high_rear = rings[0][9], rings[-1][9]
    z0, z1 = shape.shoulder_z + 0.035, shape.height - 0.10

    def edge(low: Array, high: Array, z: float) -> float:
        share = (z - low[2]) / (high[2] - low[2])
        return float(low[0] + share * (high[0] - low[0]))

    a0, a1 = edge(low_front, high_front, z0) - 0.09, edge(low_front, high_front, z1) - 0.07
    b0, b1 = edge(low_rear, high_rear, z0) + 0.13, edge(low_rear, high_rear, z1) + 0.09
    if shape.name == "van" and rng.random() < 0.5:  # a panel van has glass in its cab only
        b0 = b1 = a1 - 0.28 * (a1 - b1)
    # A frame of dark rubber, the glass within it, pillars over it.
    panel.poly(
        [(a0 + 0.03, z0 - 0.03), (a1 + 0.03, z1 + 0.025), (b1 - 0.03, z1 + 0.025), (b0 - 0.03, z0 - 0.03)], _DARK, 60
    )
    panel.poly([(a0, z0), (a1, z1), (b1, z1), (b0, z0)], glass, GLASS)
    if rng.random() < 0.3:
        panel.line([(a0 + 0.03, z0 - 0.03), (b0 - 0.03, z0 - 0.03)], (196, 198, 200), 0.02, METAL)
    pillar = paint if rng.random() < 0.35 else _DARK
    for share in (0.45, 0.82) if shape.doors == 2 else (0.62,):
        x0, x1 = a0 + share * (b0 - a0), a1 + share * (b1 - a1)
        wide = 0.045
        panel.poly([(x0 - wide, z0), (x0 + wide, z0), (x1 + wide, z1), (x1 - wide, z1)], pillar, PAINT // 2)
    # The driver's seat and wheel show as shapes behind the glass.
    if shape.name != "van":
        for share in (0.40, 0.70):
            x = a1 + share * (b1 - a1)
            panel.rounded((x, z0 + 0.13), (0.09, 0.12), _darker(glass, 0.55), GLASS)


def _doors(panel: Panel, shape: BodyShape, paint: Colour, rng: np.random.Generator) -> None:
    seam = _darker(paint, 0.42)
    front = float(shape.x(shape.front_axle)) - shape.wheel_radius - 0.16
    rear = float(shape.x(shape.rear_axle)) + shape.wheel_radius + 0.02
    sill, top = shape.clearance + 0.1, shape.shoulder_z + 0.03
    if shape.bed:
        rear = float(shape.x(shape.tail)) + 0.05
    cuts = [front, rear] if shape.doors == 1 else [front, 0.52 * front + 0.48 * rear, rear]
    for x in cuts:
        panel.line([(x, sill), (x + 0.015, 0.5 * (sill + top)), (x - 0.02, top)], seam, 0.014, MATTE)
    panel.line([(front, sill), (rear, sill)], seam, 0.014, MATTE)
    handle = (200, 202, 204) if rng.random() < 0.35 else _darker(paint, 0.6)
    for x in cuts[1:]:
        panel.rounded((x + 0.17, shape.shoulder_z - 0.11), (0.09, 0.02), handle, METAL)
    crease = 0.62 * top + 0.38 * sill
    length = shape.length / 2
    panel.line([(length * 0.93, crease - 0.03), (-length * 0.93, crease + 0.05)], _darker(paint, 0.84), 0.02, PAINT)
    if rng.random() < 0.4:
        moulding = _DARK if rng.random() < 0.6 else (176, 178, 180)
        panel.line([(front - 0.03, 0.42 * (sill + top)), (rear + 0.03, 0.42 * (sill + top))], moulding, 0.045, PAINT)
    if shape.name == "van" and rng.random() < 0.4:
        stripe: Colour = tuple(float(v) for v in rng.uniform(30, 220, 3))  # type: ignore[assignment]
        panel.poly([(front, 0.8), (rear - 0.6, 0.8), (rear - 0.4, 1.0), (front, 1.0)], stripe, PAINT)


def _window_across(panel: Panel, shape: BodyShape, glass: Colour, index: tuple[int, int]) -> None:
    """Windscreen or rear window between two corners of the greenhouse's rings."""
    rings = greenhouse_rings(shape)
    low, high = rings[0][index[0]], rings[-1][index[0]]
    z0, z1 = shape.shoulder_z + 0.05, shape.height - 0.085
    w0, w1 = (abs(float(low[1] + (z - low[2]) / (high[2] - low[2]) * (high[1] - low[1]))) - 0.015 for z in (z0, z1))
    panel.poly([(-w0, z0 - 0.03), (w0, z0 - 0.03), (w1 + 0.02, z1 + 0.02), (-w1 - 0.02, z1 + 0.02)], _DARK, 60)
    panel.poly([(-w0 + 0.04, z0), (w0 - 0.04, z0), (w1 - 0.03, z1), (-w1 + 0.03, z1)], glass, GLASS)


def _plate(panel: Panel, z: float, rng: np.random.Generator, colour: Colour) -> None:
    panel.rounded((0, z), (0.27, 0.065), (40, 38, 36), 40)
    panel.rounded((0, z), (0.255, 0.053), colour, 60)
    for k in range(6):
        if k != 2:
            x = -0.19 + 0.075 * k
            panel.poly([(x, z - 0.03), (x + 0.045, z - 0.03), (x + 0.045, z + 0.03), (x, z + 0.03)], _DARK, 40)


def paint_front(panel: Panel, body: Body, paint: Colour, glass: Colour, rng: np.random.Generator) -> None:
    """Windscreen, grille, head lamps, number plate, intake."""
    shape, lamps = body.shape, body.lamps
    half = shape.width / 2
    _window_across(panel, shape, glass, (4, 2))
    panel.rounded((0.35 * half, shape.shoulder_z + 0.14), (0.17, 0.10), _darker(glass, 0.5), GLASS)
    low = shape.clearance + 0.1
    panel.poly([(-half, 0), (half, 0), (half, low), (-half, low)], (32, 31, 30), 30)
    grille_z = lamps.head_yz[1] - float(rng.uniform(0.0, 0.04))
    grille_w = lamps.head_yz[0] - lamps.head_half[0] - 0.02
    grille_h = float(rng.uniform(0.06, 0.11)) * shape.nose_z / 0.68
    chrome = rng.random() < 0.55
    panel.rounded((0, grille_z), (grille_w, grille_h), (205, 206, 208) if chrome else (30, 30, 30), METAL)
    panel.rounded((0, grille_z), (grille_w - 0.02, grille_h - 0.02), (18, 18, 18), 40)
    for k in range(1, 4):
        z = grille_z - grille_h + 0.5 * grille_h * k
        panel.line([(-grille_w + 0.05, z), (grille_w - 0.05, z)], (90, 90, 92), 0.015, METAL)
    panel.ellipse((0, grille_z), (0.05, 0.05), (210, 212, 214), METAL)
    intake_z = shape.clearance + 0.19
    panel.rounded((0, intake_z), (0.52 * half, 0.06), (20, 20, 20), 30)
    _plate(panel, 0.5 * (grille_z - grille_h + intake_z + 0.06), rng, (226, 232, 234))
    for side in (-1, 1):
        y, z = side * lamps.head_yz[0], lamps.head_yz[1]
        hy, hz = lamps.head_half
        panel.rounded((y, z), (hy + 0.02, hz + 0.02), (60, 60, 62), METAL)
        panel.rounded((y, z), (hy, hz), (212, 228, 236), GLASS)
        panel.ellipse((y, z), (min(hy, hz) * 0.8, hz * 0.8), (236, 250, 255), METAL)
        panel.rounded((y + side * hy * 0.75, z), (hy * 0.2, hz * 0.8), (40, 150, 240), METAL)
        if rng.random() < 0.6:
            panel.ellipse((side * 0.68 * half, intake_z), (0.06, 0.05), (190, 205, 210), METAL)
    panel.line([(-half, shape.nose_z - 0.03), (half, shape.nose_z - 0.03)], _darker(paint, 0.5), 0.012, MATTE)


def paint_rear(panel: Panel, body: Body, paint: Colour, glass: Colour, rng: np.random.Generator) -> None:
    """Rear window, tail lamps, number plate, bumper, exhaust."""
    shape, lamps = body.shape, body.lamps
    half = shape.width / 2
    if shape.name == "van":
        panel.line([(0, 0.2), (0, shape.height)], _darker(paint, 0.4), 0.02, MATTE)
    if not (shape.name == "van" and rng.random() < 0.5):
        _window_across(panel, shape, _darker(glass, 0.8), (9, 14))
    low = shape.clearance + 0.12
    panel.poly([(-half, 0), (half, 0), (half, low), (-half, low)], (32, 31, 30), 30)
    z, h = lamps.tail_yz[1], lamps.tail_half[1]
    if rng.random() < 0.35:
        panel.poly(
            [(-half, z - 0.4 * h), (half, z - 0.4 * h), (half, z + 0.4 * h), (-half, z + 0.4 * h)], (26, 22, 120), METAL
        )
    for side in (-1, 1):
        y = side * lamps.tail_yz[0]
        hy, hz = lamps.tail_half
        panel.rounded((y, z), (hy + 0.02, hz + 0.02), (22, 16, 90), METAL)
        panel.rounded((y, z), (hy, hz), (30, 22, 205), GLASS)
        panel.rounded((y, z - hz * 0.45), (hy * 0.8, hz * 0.2), (170, 180, 225), METAL)
        panel.rounded((side * 0.7 * half, shape.clearance + 0.2), (0.08, 0.025), (26, 20, 150), METAL)
    _plate(
        panel, 0.55 * z + 0.45 * (shape.clearance + 0.2), rng, (90, 200, 232) if rng.random() < 0.4 else (226, 232, 234)
    )
    bumper = 0.35 * z + 0.65 * (shape.clearance + 0.1)
    panel.line([(-half, bumper), (half, bumper)], _darker(paint, 0.45), 0.016, MATTE)
    pipe = body.keypoints[8]
    panel.ellipse((float(pipe[1]), float(pipe[2])), (0.06, 0.04), (186, 188, 190), METAL)
    panel.ellipse((float(pipe[1]), float(pipe[2])), (0.042, 0.026), (10, 10, 10), MATTE)


def paint_top(panel: Panel, body: Body, paint: Colour, rng: np.random.Generator) -> None:
    """Bonnet, roof, boot lid or bed."""
    shape = body.shape
    half = shape.width / 2
    nose, cowl = shape.length / 2, float(shape.x(shape.cowl))
    tail, end = float(shape.x(shape.tail)), -shape.length / 2
    seam = _darker(paint, 0.55)
    panel.poly(
        [(cowl - 0.12, -0.8 * half), (cowl + 0.1, -0.86 * half), (cowl + 0.1, 0.86 * half), (cowl - 0.12, 0.8 * half)],
        (30, 30, 30),
        30,
    )
    for side in (-1, 1):
        panel.line([(cowl + 0.08, side * 0.82 * half), (nose - 0.25, side * 0.72 * half)], seam, 0.014, MATTE)
        panel.line([(cowl, side * 0.3 * half), (nose - 0.2, side * 0.4 * half)], _darker(paint, 0.88), 0.03, PAINT)
    panel.line([(nose - 0.16, -0.75 * half), (nose - 0.16, 0.75 * half)], seam, 0.014, MATTE)
    if shape.bed:
        panel.poly(
            [
                (tail - 0.1, -0.82 * half),
                (tail - 0.1, 0.82 * half),
                (end + 0.1, 0.82 * half),
                (end + 0.1, -0.82 * half),
            ],
            (36, 36, 36),
            20,
        )
        for k in range(1, 6):
            y = (-0.82 + k * 0.273) * half
            panel.line([(tail - 0.1, y), (end + 0.1, y)], (22, 22, 22), 0.03, MATTE)
    elif shape.tail < 0.93:
        panel.line([(end + 0.1, -0.8 * half), (tail - 0.02, -0.8 * half)], seam, 0.014, MATTE)
        panel.line([(end + 0.1, 0.8 * half), (tail - 0.02, 0.8 * half)], seam, 0.014, MATTE)
    roof_front, roof_rear = float(shape.x(shape.roof_front)), float(shape.x(shape.roof_rear))
    if rng.random() < 0.25:
        panel.poly(
            [
                (roof_front - 0.2, -0.45 * half),
                (roof_front - 0.2, 0.45 * half),
                (roof_front - 0.9, 0.45 * half),
                (roof_front - 0.9, -0.45 * half),
            ],
            (40, 38, 36),
            GLASS,
        )
    if rng.random() < 0.12:
        panel.poly(
            [(roof_front, -half), (roof_front, half), (roof_rear, half), (roof_rear, -half)], (28, 28, 30), PAINT
        )


def paint_rim(shape: BodyShape, rng: np.random.Generator) -> Image:
    """A wheel seen from its side: tyre, rim, spokes."""
    tile = np.zeros((RIM_TILE_PX, RIM_TILE_PX, 4), np.uint8)
    tile[:] = (24, 23, 23, MATTE)
    middle, tyre = RIM_TILE_PX // 2, shape.wheel_radius * RIM_PX_PER_M
    rim = tyre * float(rng.uniform(0.62, 0.72))
    alloy = np.array([196, 198, 200]) * float(rng.uniform(0.55, 1.1))
    metal = (*(float(v) for v in np.clip(alloy, 0, 235)), METAL)
    cv2.circle(tile, (middle, middle), round(tyre * 0.86), (34, 33, 33, MATTE), 2, cv2.LINE_AA)
    cv2.circle(tile, (middle, middle), round(rim), metal, -1, cv2.LINE_AA)
    cv2.circle(tile, (middle, middle), round(rim * 0.86), (30, 30, 30, MATTE), -1, cv2.LINE_AA)
    spokes = int(rng.integers(5, 11))
    thick = max(2, round(rim * float(rng.uniform(1.1, 1.9)) / spokes))
    phase = float(rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.2:
        cv2.circle(tile, (middle, middle), round(rim * 0.8), metal, -1, cv2.LINE_AA)
    for k in range(spokes):
        angle = phase + 2 * np.pi * k / spokes
        tip = (round(middle + 0.9 * rim * np.cos(angle)), round(middle + 0.9 * rim * np.sin(angle)))
        cv2.line(tile, (middle, middle), tip, metal, thick, cv2.LINE_AA)
    cv2.circle(tile, (middle, middle), round(rim * 0.2), (120, 122, 124, METAL), -1, cv2.LINE_AA)
    return tile
