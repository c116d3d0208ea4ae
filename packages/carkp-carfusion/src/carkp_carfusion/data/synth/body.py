"""Car bodies: meshes and the 14 keypoints.

A body is a tub (sill to shoulder, lofted along x), a greenhouse (shoulder to roof, lofted along z), four wheels,
mirrors and what the style adds. The frame is that of `shapes`: x forward, y left, z up.

Shapes: ``m`` quads, 14 keypoints in the order of the raw ids 1..14; in a pair the right one comes first, right and left
being the driver's.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.mesh import Mesh, box, first_hit, from_grid, join
from carkp_carfusion.data.synth.shapes import BodyShape, deck_height, greenhouse_rings, half_width, wheel_hubs
from carkp_carfusion.data.synth.types import Array

#: Panels of a car's coat; the four wheels come last, front right, front left, rear right, rear left.
SIDE, FRONT, REAR, TOP, RUBBER, WHEELS = 0, 1, 2, 3, 4, (5, 6, 7, 8)
SPOKE_STEPS = 18


@frozen(eq=False)
class Lamps:
    """Centres and half sizes (y, z) of one head lamp and one tail lamp, left side, metres."""

    head_yz: tuple[float, float]
    head_half: tuple[float, float]
    tail_yz: tuple[float, float]
    tail_half: tuple[float, float]


@frozen(eq=False)
class Body:
    """A car's solid.

    Attributes
    ----------
    shape : BodyShape
    mesh : Mesh
        In the car's frame.
    keypoints : float64 [14, 3]
        In the car's frame, ids 1..14 in order.
    lamps : Lamps
        Where the coat paints the lamps, so that paint and keypoints agree.
    """

    shape: BodyShape
    mesh: Mesh
    keypoints: Array
    lamps: Lamps


def build(shape: BodyShape, rng: np.random.Generator) -> Body:
    """The solid of a shape; ``rng`` chooses lamps, steering and the exhaust's place."""
    tub = _tub(shape)
    house = _greenhouse(shape)
    steer = math.radians(float(np.clip(rng.normal(0, 5), -14, 14)))
    hubs = wheel_hubs(shape)
    wheels = [_wheel(hub, shape.wheel_radius, WHEELS[i], steer if i < 2 else 0.0) for i, hub in enumerate(hubs)]
    mesh = join([tub, house, *wheels, *_extras(shape)])
    lamps = _lamps(shape, rng)
    pipe_y = float(rng.choice([-1, 1])) * shape.width * float(rng.uniform(0.24, 0.32))
    points = [*hubs]
    for (y, z), front in ((lamps.head_yz, True), (lamps.tail_yz, False)):
        points += [_on_surface(tub, shape, side * y, z, front=front) for side in (-1, 1)]
    points.append(_on_surface(tub, shape, pipe_y, shape.clearance + 0.06, front=False))
    points.extend(_roof_corners(shape))
    points.append(np.array([0.0, 0.0, shape.height / 2]))
    return Body(shape, mesh, np.array(points), lamps)


def _tub(shape: BodyShape) -> Mesh:
    stations = np.unique(
        np.round([0, 0.008, 0.025, 0.05, 0.085, 0.14, shape.cowl, shape.cowl + 0.1, 0.5, 0.65, shape.tail - 0.08,
                  min(shape.tail, 0.93), 0.955, 0.98, 0.993, 1.0], 4)
    )  # fmt: skip
    top = deck_height(shape, stations)
    wide = half_width(shape, stations)
    end = np.minimum(stations, 1 - stations)
    bottom = shape.clearance + 0.06 * np.clip(1 - end / 0.06, 0, 1)
    waist = bottom + 0.52 * (top - bottom)
    half = [
        (0.955 * wide, bottom),
        (0.985 * wide, bottom + 0.10),
        (1.0 * wide, waist),
        (0.985 * wide, top - 0.14),
        (0.955 * wide, top - 0.045),
        (0.88 * wide, top - 0.005),
        (0.50 * wide, top + 0.018),
    ]
    x = shape.x(stations)
    left = [np.stack([x, y, z], axis=-1) for y, z in half]
    ring = [*left, np.stack([x, np.zeros_like(x), top + 0.025], axis=-1)]
    ring += [points * [1, -1, 1] for points in reversed(left)]
    grid = np.stack(ring, axis=1)
    skin = from_grid(grid, SIDE, inside=np.array([0, 0, 0.5 * shape.shoulder_z]))
    normals = skin.face_normals / np.linalg.norm(skin.face_normals, axis=-1, keepdims=True)
    panel = np.where(np.abs(normals[:, 1]) > 0.62, SIDE, TOP)
    panel = np.where(normals[:, 0] > 0.62, FRONT, np.where(normals[:, 0] < -0.62, REAR, panel))
    # Near the bumpers the rounded corners carry the lamps round to the side.
    centres = skin.centres
    on_flank = (np.abs(normals[:, 1]) >= np.abs(normals[:, 2])) | (centres[:, 2] < shape.nose_z - 0.1)
    panel = np.where(on_flank & (panel == TOP), SIDE, panel)
    skin = Mesh(skin.corners, skin.normals, panel)
    caps = [_cap(grid[0], FRONT, 1.0), _cap(grid[-1], REAR, -1.0)]
    return join([skin, *caps])


def _cap(section: Array, panel: int, sign: float) -> Mesh:
    """The bumper's face: strips between the right and the left half of an end section."""
    middle = len(section) // 2
    left, right = section[: middle + 1], section[::-1][: middle + 1]
    strips = np.stack([left, 0.5 * (left + right), right], axis=1)
    strips[:, 1, 0] += 0.03 * sign
    return from_grid(strips, panel, inside=strips.reshape(-1, 3).mean(axis=0) - [sign, 0, 0])


def _greenhouse(shape: BodyShape) -> Mesh:
    rings = greenhouse_rings(shape)
    around = [
        SIDE,
        FRONT,
        FRONT,
        FRONT,
        FRONT,
        SIDE,
        SIDE,
        SIDE,
        SIDE,
        SIDE,
        REAR,
        REAR,
        REAR,
        REAR,
        SIDE,
        SIDE,
        SIDE,
        SIDE,
    ]
    walls = from_grid(rings, np.broadcast_to(around, (len(rings) - 1, len(around))), closed=True)
    edge = rings[-1]
    middle = edge.mean(axis=0)
    crown = ((1.0, 0.0), (0.93, 0.022), (0.6, 0.04), (0.02, 0.045))
    levels = [(edge - middle) * [share, share, 0] + middle + [0, 0, rise] for share, rise in crown]
    roof = from_grid(np.stack(levels), TOP, closed=True, inside=middle - [0, 0, 1])
    return join([walls, roof])


def _roof_corners(shape: BodyShape) -> Array:
    edge = greenhouse_rings(shape)[-1]
    return np.asarray(edge[[1, 5, 14, 10]] + [0, 0, 0.012])


@lru_cache(maxsize=2)
def _unit_wheel(side: int) -> Mesh:
    """A tyre of radius and width 1 whose outer face, at the origin, faces ``side`` * y: tread, shoulder and two discs.

    The panels are `RUBBER`, and -1 on the outer face.
    """
    angles = np.arange(SPOKE_STEPS) * (2 * math.pi / SPOKE_STEPS)
    circle = np.stack([np.cos(angles), np.zeros(SPOKE_STEPS), np.sin(angles)], axis=-1)
    inward = np.array([0.0, -side, 0.0])
    rings = np.stack([0.94 * circle, circle + 0.17 * inward, circle + inward])
    tread = from_grid(rings, RUBBER, closed=True, inside=0.5 * inward)
    discs = []
    for ring, middle, panel in ((rings[0], np.zeros(3), -1), (rings[2], inward, RUBBER)):
        fan = np.stack([[middle, ring[i], ring[i + 1], ring[(i + 2) % SPOKE_STEPS]] for i in range(0, SPOKE_STEPS, 2)])
        outward = inward if panel == RUBBER else -inward
        if np.dot(np.cross(fan[0, 2] - fan[0, 0], fan[0, 3] - fan[0, 1]), outward) < 0:
            fan = fan[:, [0, 3, 2, 1]]
        discs.append(Mesh(fan, np.array(np.broadcast_to(outward, fan.shape)), np.full(len(fan), panel)))
    return join([tread, *discs])


def _wheel(hub: Array, radius: float, panel: int, steer: float) -> Mesh:
    """A wheel with the middle of its outer face at ``hub``, turned by ``steer`` radians."""
    unit = _unit_wheel(1 if hub[1] > 0 else -1)
    sized = Mesh(unit.corners * [radius, 0.2, radius], unit.normals, np.where(unit.panel < 0, panel, unit.panel))
    c, s = math.cos(steer), math.sin(steer)
    return sized.placed(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), hub)


def _extras(shape: BodyShape) -> list[Mesh]:
    """Mirrors, and the spoiler or roof rails of the styles that have them."""
    wide = shape.width
    x = float(shape.x(shape.cowl + 0.25 * (shape.roof_front - shape.cowl)))
    z = shape.shoulder_z + 0.01
    parts = [_box((x - 0.12, x + 0.06), (s * 0.475 * wide, s * (0.475 * wide + 0.2)), (z, z + 0.15)) for s in (-1, 1)]
    if shape.spoiler:
        x, z = float(shape.x(0.985)), shape.deck_z + 0.12
        parts.append(_box((x, x + 0.2), (-0.4 * wide, 0.4 * wide), (z, z + 0.035)))
    if shape.roof_rails:
        along = (float(shape.x(shape.roof_rear - 0.05)), float(shape.x(shape.roof_front + 0.06)))
        y, z = 0.37 * wide * (1 - 0.6 * shape.tumblehome), shape.height
        parts += [_box(along, (s * y - 0.02, s * y + 0.02), (z - 0.03, z + 0.03), RUBBER) for s in (-1, 1)]
    return parts


def _box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], panel: int = TOP) -> Mesh:
    low, high = np.sort(np.array([x, y, z]), axis=1).T
    return box(low, high, panel)


def _lamps(shape: BodyShape, rng: np.random.Generator) -> Lamps:
    half = shape.width / 2
    head_half = (half * float(rng.uniform(0.15, 0.21)), float(rng.uniform(0.06, 0.09)))
    tall = shape.name in ("van", "suv", "pickup", "hatchback", "city", "wagon") and rng.random() < 0.7
    tail_half = (half * float(rng.uniform(0.07, 0.10)), float(rng.uniform(0.12, 0.17)))
    if not tall:
        tail_half = (half * float(rng.uniform(0.14, 0.2)), float(rng.uniform(0.06, 0.085)))
    tail_z = shape.deck_z - 0.13 - tail_half[1]
    return Lamps(
        head_yz=(half * 0.93 * shape.taper - 0.4 * head_half[0], shape.nose_z - 0.11 - head_half[1] * 0.6),
        head_half=head_half,
        tail_yz=(half * 0.93 * shape.taper - 0.3 * tail_half[0], tail_z),
        tail_half=tail_half,
    )


def _on_surface(mesh: Mesh, shape: BodyShape, y: float, z: float, *, front: bool) -> Array:
    """The outermost point of the mesh at (y, z), seen along x from the front or the rear."""
    far = shape.length
    origin = np.array([far if front else -far, y, z])
    direction = np.array([[-1.0 if front else 1.0, 0.0, 0.0]])
    distance = first_hit(mesh.triangles, origin, direction)[0]
    assert np.isfinite(distance), f"{shape.name}: no surface at y={y:.2f}, z={z:.2f}"
    return np.asarray(origin + direction[0] * distance)
