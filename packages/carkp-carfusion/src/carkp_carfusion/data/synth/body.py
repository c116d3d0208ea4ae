"""Car bodies: proportions of the body styles, their meshes and their 14 keypoints.

A car's frame: x forward, y to its left, z up, metres; the origin is on the ground under the middle of its length. A
station ``s`` in 0..1 runs from the front bumper to the rear one. A body is a tub (sill to shoulder, lofted along x), a
greenhouse (shoulder to roof, lofted along z), four wheels, mirrors and what the style adds.

Shapes: ``m`` quads, 14 keypoints in the order of the raw ids 1..14; in a pair the right one comes first, right and left
being the driver's.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import evolve, frozen

from carkp_carfusion.data.synth.mesh import Mesh, box, first_hit, from_grid, join
from carkp_carfusion.data.synth.types import Array

#: Panels of a car's coat; the four wheels come last, front right, front left, rear right, rear left.
SIDE, FRONT, REAR, TOP, RUBBER, WHEELS = 0, 1, 2, 3, 4, (5, 6, 7, 8)
SPOKE_STEPS = 18


@frozen
class BodyShape:
    """Proportions of a car. Lengths in metres, stations as shares of the length from the front.

    ``cowl`` and ``tail`` are the stations where the greenhouse meets the tub, ``roof_front`` and ``roof_rear`` where its
    roof begins and ends. ``tumblehome`` is how far the roof is narrower than the shoulder, as a share.
    """

    name: str
    length: float
    width: float
    height: float
    cowl: float
    roof_front: float
    roof_rear: float
    tail: float
    nose_z: float
    cowl_z: float
    shoulder_z: float
    deck_z: float
    clearance: float
    wheel_radius: float
    front_axle: float
    rear_axle: float
    tumblehome: float = 0.17
    taper: float = 0.74
    bed: bool = False
    spoiler: bool = False
    roof_rails: bool = False

    def x(self, station: float | Array) -> Array:
        """The x of a station."""
        return np.asarray(self.length * (0.5 - np.asarray(station, dtype=float)))

    @property
    def sides(self) -> int:
        """Doors of one side that a person would count: 1 on a coupe, else 2."""
        return 1 if self.roof_rear - self.roof_front < 0.24 else 2


#: The styles, each with middling proportions; `vary` moves them about.
STYLES: tuple[BodyShape, ...] = (
    BodyShape("sedan", 4.70, 1.82, 1.45, 0.27, 0.42, 0.69, 0.86, 0.66, 0.93, 0.94, 1.02, 0.19, 0.33, 0.19, 0.79),
    BodyShape("hatchback", 4.10, 1.76, 1.50, 0.24, 0.40, 0.86, 0.965, 0.68, 0.96, 0.97, 0.99, 0.18, 0.31, 0.19, 0.82),
    BodyShape("wagon", 4.75, 1.82, 1.48, 0.27, 0.41, 0.90, 0.97, 0.66, 0.94, 0.95, 0.97, 0.19, 0.33, 0.19, 0.78, roof_rails=True),
    BodyShape("suv", 4.65, 1.90, 1.74, 0.25, 0.39, 0.90, 0.965, 0.86, 1.10, 1.10, 1.12, 0.25, 0.38, 0.19, 0.81, roof_rails=True),
    BodyShape("van", 5.00, 1.96, 2.00, 0.13, 0.29, 0.95, 0.985, 0.86, 1.12, 1.10, 1.10, 0.22, 0.34, 0.17, 0.80, 0.12),
    BodyShape("pickup", 5.40, 1.94, 1.82, 0.26, 0.36, 0.55, 0.59, 0.95, 1.14, 1.12, 1.12, 0.30, 0.39, 0.17, 0.78, bed=True),
    BodyShape("coupe", 4.45, 1.84, 1.31, 0.31, 0.48, 0.66, 0.90, 0.58, 0.85, 0.86, 0.94, 0.15, 0.34, 0.19, 0.80, 0.22, spoiler=True),
    BodyShape("city", 3.60, 1.65, 1.52, 0.17, 0.34, 0.87, 0.965, 0.74, 0.97, 0.97, 0.98, 0.18, 0.29, 0.17, 0.84, 0.14),
)  # fmt: skip


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


def vary(shape: BodyShape, rng: np.random.Generator, amount: float = 1.0) -> BodyShape:
    """Another car of the same style. ``amount`` 1 gives the spread found in a street; 0 gives the shape itself."""

    def scale(spread: float) -> float:
        return 1.0 + amount * float(rng.uniform(-spread, spread))

    def shift(spread: float) -> float:
        return amount * float(rng.uniform(-spread, spread))

    tall = scale(0.05)
    return evolve(
        shape,
        length=shape.length * scale(0.06),
        width=shape.width * scale(0.03),
        height=shape.height * tall,
        cowl=shape.cowl + shift(0.015),
        roof_front=shape.roof_front + shift(0.015),
        roof_rear=shape.roof_rear + shift(0.015),
        nose_z=shape.nose_z * tall * scale(0.05),
        cowl_z=shape.cowl_z * tall,
        shoulder_z=shape.shoulder_z * tall,
        deck_z=shape.deck_z * tall * scale(0.02),
        clearance=shape.clearance * scale(0.12),
        wheel_radius=shape.wheel_radius * scale(0.05),
        front_axle=shape.front_axle + shift(0.01),
        rear_axle=shape.rear_axle + shift(0.01),
        tumblehome=shape.tumblehome * scale(0.2),
        taper=min(0.88, shape.taper * scale(0.08)),
        spoiler=shape.spoiler and bool(rng.random() < 0.6),
        roof_rails=shape.roof_rails and bool(rng.random() < 0.6),
    )


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
    for side in (-1, 1):
        points.append(_on_surface(tub, shape, side * lamps.head_yz[0], lamps.head_yz[1], front=True))
    for side in (-1, 1):
        points.append(_on_surface(tub, shape, side * lamps.tail_yz[0], lamps.tail_yz[1], front=False))
    points.append(_on_surface(tub, shape, pipe_y, shape.clearance + 0.06, front=False))
    points.extend(_roof_corners(shape))
    points.append(np.array([0.0, 0.0, shape.height / 2]))
    return Body(shape, mesh, np.array(points), lamps)


def wheel_hubs(shape: BodyShape) -> Array:
    """[4, 3] centres of the wheels' outer faces: front right, front left, rear right, rear left."""
    y = shape.width / 2 + 0.004
    z = shape.wheel_radius
    front, rear = float(shape.x(shape.front_axle)), float(shape.x(shape.rear_axle))
    return np.array([[front, -y, z], [front, y, z], [rear, -y, z], [rear, y, z]])


def deck_height(shape: BodyShape, station: Array) -> Array:
    """Height of the tub's upper edge (bonnet, shoulder, boot lid) at stations."""
    knots = [0.0, 0.02, 0.07, shape.cowl, 0.5, shape.tail, 0.975, 1.0]
    bonnet = shape.nose_z + 0.45 * (shape.cowl_z - shape.nose_z)
    heights = [
        shape.nose_z - 0.06, shape.nose_z, bonnet, shape.cowl_z,
        shape.shoulder_z + 0.01, shape.deck_z, shape.deck_z - 0.02, shape.deck_z - 0.09,
    ]  # fmt: skip
    if shape.tail > 0.975:
        knots, heights = knots[:5] + knots[6:], heights[:5] + heights[6:]
    return np.interp(station, knots, heights)


def half_width(shape: BodyShape, station: Array) -> Array:
    """Half the tub's width at stations: rounded off towards both bumpers."""
    depth = np.minimum(np.asarray(station) / 0.11, (1 - np.asarray(station)) / 0.085)
    roundness = np.clip(1 - depth, 0, 1) ** 2.4
    return np.asarray(shape.width / 2 * (1 - (1 - shape.taper) * roundness))


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
    flat = from_grid(strips, panel, inside=strips.reshape(-1, 3).mean(axis=0) - [sign, 0, 0])
    return flat


def _plan_ring(front: float, rear: float, half_front: float, half_rear: float, radius: float, bow: float) -> Array:
    """[20, 2] a rounded rectangle in plan, from the front right corner's arc anticlockwise seen from above.

    Three points an arc; the middle of an arc is the corner that the keypoints name.
    """
    points: list[tuple[float, float]] = []

    def arc(x: float, y: float, start: float) -> None:
        for k in range(3):
            angle = start + k * math.pi / 4
            points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))

    arc(front - radius, -half_front + radius, -math.pi / 2)
    points.append((front + bow, 0.0))
    arc(front - radius, half_front - radius, 0.0)
    for share in (0.33, 0.67):
        points.append((front + share * (rear - front), half_front + share * (half_rear - half_front)))
    arc(rear + radius, half_rear - radius, math.pi / 2)
    points.append((rear - bow * 0.6, 0.0))
    arc(rear + radius, -half_rear + radius, math.pi)
    for share in (0.67, 0.33):
        points.append((front + share * (rear - front), -half_front - share * (half_rear - half_front)))
    return np.array(points)


def greenhouse_rings(shape: BodyShape) -> Array:
    """[levels, 18, 3] rings of the greenhouse from the shoulder to the roof's edge."""
    base = _plan_ring(
        float(shape.x(shape.cowl)) + 0.05,
        float(shape.x(shape.tail)),
        0.455 * shape.width,
        0.45 * shape.width,
        0.13,
        0.14,
    )
    narrow = 1 - shape.tumblehome
    roof = _plan_ring(
        float(shape.x(shape.roof_front)), float(shape.x(shape.roof_rear)),
        0.455 * shape.width * narrow, 0.45 * shape.width * (narrow - 0.01), 0.10, 0.07,
    )  # fmt: skip
    low, high = shape.shoulder_z - 0.07, shape.height - 0.045
    rings = []
    for rise, spread in ((0.0, 0.0), (0.3, 0.26), (0.65, 0.6), (0.92, 0.9), (1.0, 1.0)):
        plan = base + (roof - base) * spread
        rings.append(np.column_stack([plan, np.full(len(plan), low + rise * (high - low))]))
    return np.stack(rings)


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
    levels = [edge]
    for shrink, rise in ((0.93, 0.022), (0.6, 0.04), (0.02, 0.045)):
        levels.append((edge - middle) * [shrink, shrink, 0] + middle + [0, 0, rise])
    roof = from_grid(np.stack(levels), TOP, closed=True, inside=middle - [0, 0, 1])
    return join([walls, roof])


def _roof_corners(shape: BodyShape) -> Array:
    edge = greenhouse_rings(shape)[-1]
    return np.asarray(edge[[1, 5, 14, 10]] + [0, 0, 0.012])


def _wheel(hub: Array, radius: float, panel: int, steer: float) -> Mesh:
    """A tyre with its outer face at ``hub``: tread, shoulder and two discs, turned by ``steer``."""
    side = math.copysign(1.0, hub[1])
    angles = np.arange(SPOKE_STEPS) * (2 * math.pi / SPOKE_STEPS)
    circle = np.stack([np.cos(angles), np.zeros(SPOKE_STEPS), np.sin(angles)], axis=-1)
    depth = np.array([0.0, -side, 0.0])
    rings = np.stack([0.94 * radius * circle, radius * circle + 0.035 * depth, radius * circle + 0.2 * depth])
    tread = from_grid(rings, RUBBER, closed=True, inside=0.1 * depth)
    discs = []
    for ring, towards, on in ((rings[0], -depth, panel), (rings[2], depth, RUBBER)):
        fan = np.stack([np.stack([np.zeros(3) + ring.mean(axis=0), ring[i], ring[i + 1], ring[(i + 2) % SPOKE_STEPS]])
                        for i in range(0, SPOKE_STEPS, 2)])  # fmt: skip
        if np.dot(np.cross(fan[0, 2] - fan[0, 0], fan[0, 3] - fan[0, 1]), towards) < 0:
            fan = fan[:, [0, 3, 2, 1]]
        normals = np.broadcast_to(towards, fan.shape)
        discs.append(Mesh(fan, np.array(normals), np.full(len(fan), on)))
    turn = np.array([[math.cos(steer), -math.sin(steer), 0], [math.sin(steer), math.cos(steer), 0], [0, 0, 1]])
    return join([tread, *discs]).placed(turn, hub)


def _extras(shape: BodyShape) -> list[Mesh]:
    """Mirrors, and the spoiler or roof rails of the styles that have them."""
    parts = []
    mirror_x = float(shape.x(shape.cowl + 0.25 * (shape.roof_front - shape.cowl)))
    for side in (-1, 1):
        y = sorted((side * 0.475 * shape.width, side * (0.475 * shape.width + 0.2)))
        z = shape.shoulder_z + 0.01
        parts.append(box(np.array([mirror_x - 0.12, y[0], z]), np.array([mirror_x + 0.06, y[1], z + 0.15]), TOP))
    if shape.spoiler:
        x = float(shape.x(0.985))
        z = shape.deck_z + 0.12
        parts.append(box(np.array([x, -0.4 * shape.width, z]), np.array([x + 0.2, 0.4 * shape.width, z + 0.035]), TOP))
    if shape.roof_rails:
        front, rear = float(shape.x(shape.roof_front + 0.06)), float(shape.x(shape.roof_rear - 0.05))
        for side in (-1, 1):
            y = side * 0.37 * shape.width * (1 - shape.tumblehome * 0.6)
            z = shape.height
            parts.append(box(np.array([rear, y - 0.02, z - 0.03]), np.array([front, y + 0.02, z + 0.03]), RUBBER))
    return parts


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
    origin = np.array([[far if front else -far, y, z]])
    direction = np.array([[-1.0 if front else 1.0, 0.0, 0.0]])
    distance = first_hit(mesh.triangles, origin, direction)[0]
    assert np.isfinite(distance), f"{shape.name}: no surface at y={y:.2f}, z={z:.2f}"
    return np.asarray((origin + direction * distance)[0])
