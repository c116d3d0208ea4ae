"""Proportions of cars: the body styles, how cars of a style differ, and the curves that follow from the proportions.

A car's frame: x forward, y to its left, z up, metres; the origin is on the ground under the middle of its length. A
station in 0..1 runs from the front bumper to the rear one.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import evolve, frozen

from carkp_carfusion.data.synth.types import Array


@frozen
class BodyShape:
    """Proportions of a car. Lengths in metres, stations as shares of the length from the front.

    ``cowl`` and ``tail`` are the stations where the greenhouse meets the tub, ``roof_front`` and ``roof_rear`` where
    its roof begins and ends. ``tumblehome`` is how far the roof is narrower than the shoulder, as a share; ``taper`` is
    the width of the bumpers as a share of the car's.
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
    def doors(self) -> int:
        """Doors on one side: 1 where the cabin is short, else 2."""
        return 1 if self.roof_rear - self.roof_front < 0.24 else 2


#: The styles, each with middling proportions; `vary` moves them about.
STYLES: tuple[BodyShape, ...] = (
    BodyShape(
        "sedan", length=4.70, width=1.82, height=1.45, cowl=0.27, roof_front=0.42, roof_rear=0.69, tail=0.86,
        nose_z=0.66, cowl_z=0.93, shoulder_z=0.94, deck_z=1.02, clearance=0.19,
        wheel_radius=0.33, front_axle=0.19, rear_axle=0.79,
    ),
    BodyShape(
        "hatchback", length=4.10, width=1.76, height=1.50, cowl=0.24, roof_front=0.40, roof_rear=0.86, tail=0.965,
        nose_z=0.68, cowl_z=0.96, shoulder_z=0.97, deck_z=0.99, clearance=0.18,
        wheel_radius=0.31, front_axle=0.19, rear_axle=0.82,
    ),
    BodyShape(
        "wagon", length=4.75, width=1.82, height=1.48, cowl=0.27, roof_front=0.41, roof_rear=0.90, tail=0.97,
        nose_z=0.66, cowl_z=0.94, shoulder_z=0.95, deck_z=0.97, clearance=0.19,
        wheel_radius=0.33, front_axle=0.19, rear_axle=0.78, roof_rails=True,
    ),
    BodyShape(
        "suv", length=4.65, width=1.90, height=1.74, cowl=0.25, roof_front=0.39, roof_rear=0.90, tail=0.965,
        nose_z=0.86, cowl_z=1.10, shoulder_z=1.10, deck_z=1.12, clearance=0.25,
        wheel_radius=0.38, front_axle=0.19, rear_axle=0.81, roof_rails=True,
    ),
    BodyShape(
        "van", length=5.00, width=1.96, height=2.00, cowl=0.13, roof_front=0.29, roof_rear=0.95, tail=0.985,
        nose_z=0.86, cowl_z=1.12, shoulder_z=1.10, deck_z=1.10, clearance=0.22,
        wheel_radius=0.34, front_axle=0.17, rear_axle=0.80, tumblehome=0.12,
    ),
    BodyShape(
        "pickup", length=5.40, width=1.94, height=1.82, cowl=0.26, roof_front=0.36, roof_rear=0.55, tail=0.59,
        nose_z=0.95, cowl_z=1.14, shoulder_z=1.12, deck_z=1.12, clearance=0.30,
        wheel_radius=0.39, front_axle=0.17, rear_axle=0.78, bed=True,
    ),
    BodyShape(
        "coupe", length=4.45, width=1.84, height=1.31, cowl=0.31, roof_front=0.48, roof_rear=0.66, tail=0.90,
        nose_z=0.58, cowl_z=0.85, shoulder_z=0.86, deck_z=0.94, clearance=0.15,
        wheel_radius=0.34, front_axle=0.19, rear_axle=0.80, tumblehome=0.22, spoiler=True,
    ),
    BodyShape(
        "city", length=3.60, width=1.65, height=1.52, cowl=0.17, roof_front=0.34, roof_rear=0.87, tail=0.965,
        nose_z=0.74, cowl_z=0.97, shoulder_z=0.97, deck_z=0.98, clearance=0.18,
        wheel_radius=0.29, front_axle=0.17, rear_axle=0.84, tumblehome=0.14,
    ),
)  # fmt: skip


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


def _plan_ring(front: float, rear: float, half_front: float, half_rear: float, radius: float, bow: float) -> Array:
    """[18, 2] a rounded rectangle in plan, from the front right corner's arc anticlockwise seen from above.

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
    flanks = [(front + k * (rear - front), half_front + k * (half_rear - half_front)) for k in (1 / 3, 2 / 3)]
    points += flanks
    arc(rear + radius, half_rear - radius, math.pi / 2)
    points.append((rear - bow * 0.6, 0.0))
    arc(rear + radius, -half_rear + radius, math.pi)
    points += [(x, -y) for x, y in reversed(flanks)]
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
