"""Places: the ground plan of a sequence (roads, bays, buildings) and where a car may stand on it.

A place's frame is the world's: metres, z up. A street runs along x through the origin; a crossing adds one along y; a
car park is a square of rows of bays.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.coat import PAINTS
from carkp_carfusion.data.synth.shapes import STYLES
from carkp_carfusion.data.synth.types import Array, Colour, stream

#: How far the plan reaches from the origin.
REACH_M = 90.0
KINDS = ("street", "crossing", "lot")


@frozen(eq=False)
class Block:
    """A building: its footprint, height, colour and the look of its windows."""

    low_xy: tuple[float, float]
    high_xy: tuple[float, float]
    height: float
    colour: Colour
    window: Colour
    storey: float
    bay: float
    brick: bool


@frozen(eq=False)
class Place:
    """The surroundings that the frames of one sequence share.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    road_half : float
        Half the width of a road, or of the car park.
    pavement : float
        Width of the pavement beside it.
    lanes_y : float64 [lanes]
        Middles of lanes (and parking strips) from the road's axis; those below 0 head along +x.
    asphalt, paving, verge, marking : Colour
    blocks : tuple of Block
    styles : float64 [len(STYLES)]
        How frequent each body style is here.
    paints : tuple of Colour
        The paints seen here.
    camera_height : (float, float)
        Range in metres.
    hfov_deg : (float, float)
        Range of the horizontal field of view.
    """

    kind: str
    road_half: float
    pavement: float
    lanes_y: Array
    asphalt: Colour
    paving: Colour
    verge: Colour
    marking: Colour
    blocks: tuple[Block, ...]
    styles: Array
    paints: tuple[Colour, ...]
    camera_height: tuple[float, float]
    hfov_deg: tuple[float, float]


def make_place(seed: int, split: str, sequence: str, number: int) -> Place:
    """The place of a sequence; ``number`` is its position in the split, and cycles through the kinds."""
    rng = stream(seed, split, sequence, "place")
    kind = KINDS[number % 3]
    lane = float(rng.uniform(3.0, 3.5))
    lanes = int(rng.integers(1, 3))
    strip = 2.2
    road_half = lanes * lane + strip + 0.4 if kind != "lot" else float(rng.uniform(24, 32))
    offsets = [lane * (k + 0.5) for k in range(lanes)] + [lanes * lane + strip / 2]
    lanes_y = np.array([sign * y for y in offsets for sign in (-1, 1)])
    pavement = float(rng.uniform(2.2, 4.0))
    grey = float(rng.uniform(70, 118))
    slabs = float(rng.uniform(135, 178))
    green = rng.random() < 0.6
    verge: Colour = (60.0, 105.0, 84.0) if green else (118.0, 140.0, 152.0)
    own = np.array(PAINTS)[rng.permutation(len(PAINTS))[:13]]
    paints = [_colour(paint + rng.uniform(-14, 14, 3)) for paint in own]
    low = float(rng.uniform(1.5, 2.6))
    wide = float(rng.uniform(46, 56))
    return Place(
        kind=kind,
        road_half=road_half,
        pavement=pavement,
        lanes_y=lanes_y,
        asphalt=_colour(grey + rng.uniform(-5, 6, 3)),
        paving=_colour(slabs + np.array([-12.0, -4.0, 0.0]) * float(rng.uniform(0, 1.6))),
        verge=verge,
        marking=(70.0, 190.0, 225.0) if rng.random() < 0.4 else (222.0, 224.0, 226.0),
        blocks=_blocks(kind, road_half + pavement, rng),
        styles=rng.dirichlet(np.full(len(STYLES), 3.0)),
        paints=tuple(paints),
        camera_height=(low, low + float(rng.uniform(0.6, 2.2))),
        hfov_deg=(wide, wide + float(rng.uniform(4, 14))),
    )


def candidate_poses(place: Place, rng: np.random.Generator, count: int, turning: float) -> Array:
    """[count, 3] places a car may take: x, y, yaw (radians, anticlockwise from +x)."""
    along = rng.uniform(-0.7 * REACH_M, 0.7 * REACH_M, count)
    if place.kind == "lot":
        return _bays(place, rng, count, turning)
    lane = rng.choice(place.lanes_y, count)
    x, y = along, lane + rng.uniform(-0.2, 0.2, count)
    yaw = np.where(lane < 0, 0.0, math.pi)
    if place.kind == "crossing":
        across = rng.random(count) < 0.5
        x, y = np.where(across, -y, x), np.where(across, along, y)
        yaw = yaw + across * (math.pi / 2)
    free = rng.random(count) < turning
    yaw = yaw + rng.normal(0, 0.035, count) + free * rng.uniform(-1.0, 1.0, count)
    return np.stack([x, y, yaw], axis=1)


def _bays(place: Place, rng: np.random.Generator, count: int, turning: float) -> Array:
    rows = bay_rows(place)
    row = rng.choice(rows, count)
    half = place.road_half - 2
    x = np.round(rng.uniform(-half, half, count) / 2.8) * 2.8 + rng.normal(0, 0.1, count)
    y = row + rng.normal(0, 0.15, count)
    yaw = rng.choice([-0.5, 0.5], count) * math.pi + rng.normal(0, 0.03, count)
    aisle = rng.random(count) < 0.35
    y = np.where(aisle, row + rng.choice([-5.6, 5.6], count), y)
    x = np.where(aisle, rng.uniform(-half, half, count), x)
    yaw = np.where(aisle, rng.choice([0.0, math.pi], count) + rng.normal(0, 0.05, count), yaw)
    free = aisle & (rng.random(count) < 2.5 * turning)
    return np.stack([x, y, yaw + free * rng.uniform(-math.pi, math.pi, count)], axis=1)


def bay_rows(place: Place) -> Array:
    """[rows] the y of the middles of a car park's rows of bays."""
    count = int((2 * place.road_half - 8) // 11.5)
    return (np.arange(count) - (count - 1) / 2) * 11.5


def camera_site(place: Place, rng: np.random.Generator) -> tuple[float, float, float]:
    """x, y and yaw of a camera at a place: where a person with a camera would stand, looking at the cars."""
    edge = place.road_half + place.pavement * 0.6
    if place.kind == "lot":
        angle = float(rng.uniform(0, 2 * math.pi))
        radius = float(rng.uniform(0.35, 0.85)) * place.road_half
        x, y = radius * math.cos(angle), radius * math.sin(angle)
        return x, y, angle + math.pi + float(rng.uniform(-0.7, 0.7))
    if place.kind == "crossing":
        far = float(rng.uniform(3, 16)) + place.road_half
        side = float(rng.uniform(-1, 1)) * edge
        turn = int(rng.integers(4)) * math.pi / 2
        x, y = far * math.cos(turn) - side * math.sin(turn), far * math.sin(turn) + side * math.cos(turn)
        return x, y, math.atan2(-y, -x) + float(rng.uniform(-0.45, 0.45))
    y = float(rng.uniform(-1, 1)) * edge
    yaw = float(rng.choice([0.0, math.pi])) + float(rng.uniform(-0.65, 0.65))
    return float(rng.uniform(-15, 15)), y, yaw


def hidden_by_blocks(place: Place, camera_xy: Array, targets_xy: Array) -> Array:
    """[P] whether a building stands between the camera and each ground point [P, 2], or on the point."""
    hidden = np.zeros(len(targets_xy), bool)
    direction = targets_xy - camera_xy
    with np.errstate(divide="ignore", invalid="ignore"):
        for block in place.blocks:
            enter = (np.array(block.low_xy) - camera_xy) / direction
            leave = (np.array(block.high_xy) - camera_xy) / direction
            first = np.minimum(enter, leave).max(axis=1)
            last = np.maximum(enter, leave).min(axis=1)
            hidden |= (first < last) & (last > 0) & (first < 1)
    return hidden


def _blocks(kind: str, front: float, rng: np.random.Generator) -> tuple[Block, ...]:
    """Rows of buildings that face the road, the crossing roads or the car park's four sides."""
    palette = [_colour(rng.uniform(70, 200) + rng.uniform(-30, 30) * np.array([-1.0, 0.1, 0.9])) for _ in range(5)]
    line = front + float(rng.uniform(0.3, 5.0))
    corner = line + 17  # behind the corner houses, which face both roads
    spans: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]] = {
        "street": ([(-REACH_M, REACH_M)], []),
        "crossing": ([(-REACH_M, -line), (line, REACH_M)], [(-REACH_M, -corner), (corner, REACH_M)]),
        "lot": ([(-line, line)], [(-line, line)]),
    }
    along_x, along_y = spans[kind]
    blocks = [_block(lot, depth, side * line, False, palette, rng)
              for span in along_x for side in (-1, 1) for lot, depth in _lots(span, rng)]  # fmt: skip
    blocks += [_block(lot, depth, side * line, True, palette, rng)
               for span in along_y for side in (-1, 1) for lot, depth in _lots(span, rng)]  # fmt: skip
    return tuple(blocks)


def _lots(span: tuple[float, float], rng: np.random.Generator) -> list[tuple[tuple[float, float], float]]:
    """Fronts (start, end) and depths of the houses along a line; some lots stay empty."""
    lots = []
    at = span[0]
    while at < span[1] - 5:
        end = min(at + float(rng.uniform(8, 20)), span[1])
        if rng.random() < 0.85:
            lots.append(((at, end), float(rng.uniform(9, 16))))
        at = end + (float(rng.uniform(2, 8)) if rng.random() < 0.3 else 0.0)
    return lots


def _block(
    lot: tuple[float, float], depth: float, line: float, turned: bool, palette: list[Colour], rng: np.random.Generator
) -> Block:
    """A house whose front runs along ``line`` (a y, or an x when ``turned``) and which lies behind it."""
    near, far = sorted((line, line + math.copysign(depth, line)))
    low, high = ((near, lot[0]), (far, lot[1])) if turned else ((lot[0], near), (lot[1], far))
    return Block(
        low_xy=low,
        high_xy=high,
        height=float(rng.uniform(5, 19)),
        colour=palette[int(rng.integers(len(palette)))],
        window=_colour(rng.uniform(35, 110) * np.array([1.15, 1.05, 0.9])),
        storey=float(rng.uniform(2.8, 3.8)),
        bay=float(rng.uniform(1.8, 3.6)),
        brick=bool(rng.random() < 0.5),
    )


def _colour(values: Array) -> Colour:
    b, g, r = np.clip(values, 12, 245)
    return float(b), float(g), float(r)
