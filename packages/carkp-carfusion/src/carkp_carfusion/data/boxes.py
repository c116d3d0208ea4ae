"""Which part of a frame is a car: a box of ``bb/`` where one fits, else the hull of its points, widened.

A line of ``bb/<cam>_<frame>.txt`` is ``x1,y1,x2,y2,car_id``, or ``x1,y1,x2,y2`` for the car whose hull it overlaps
most (intersection over union at least 0.3). Such a box is taken as it stands, since it already holds the whole car;
the hull of the valid points is widened, since the points lie inside the car's outline.
Boxes are float (x1, y1, x2, y2) in pixels; windows are whole pixels, the right and bottom ends excluded.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from carkp_carfusion.data.raw import LabelledCar
from carkp_carfusion.data.tally import Tally

Box = tuple[float, float, float, float]


@frozen
class BoxRules:
    """The numbers that decide on a car's crop."""

    widen_left_top: float = 0.10
    widen_right_bottom: float = 0.15
    min_side_px: int = 24
    min_valid_points: int = 3
    min_iou: float = 0.3


def parse_boxes(text: str, place: str) -> tuple[list[tuple[Box, int | None]], Tally]:
    """Parse the lines of a box file: boxes with a car id, or with None where the line has four columns."""
    boxes: list[tuple[Box, int | None]] = []
    problems: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        box = _parse_box(line)
        if box is None:
            problems.append(("malformed_box", f"{place}:{number}: {line.strip()[:60]}"))
        else:
            boxes.append(box)
    return boxes, Tally.of(problems)


def _parse_box(line: str) -> tuple[Box, int | None] | None:
    columns = line.split(",")
    if len(columns) not in (4, 5):
        return None
    try:
        values = [float(column) for column in columns]
    except ValueError:
        return None
    x1, y1, x2, y2 = values[:4]
    if not all(map(math.isfinite, values)) or x2 <= x1 or y2 <= y1:
        return None
    if len(values) == 4:
        return (x1, y1, x2, y2), None
    return ((x1, y1, x2, y2), int(values[4])) if values[4].is_integer() else None


def assign_boxes(
    boxes: list[tuple[Box, int | None]], hulls: dict[int, Box | None], rules: BoxRules, place: str
) -> tuple[dict[int, Box], Tally]:
    """Car id -> its box. A box with an id goes to that car; one without, to the car it overlaps most.

    A car keeps its first box with an id; among boxes without one, that with the largest overlap. A car without
    valid points has the hull None: its box is known, but of no use.
    """
    visible = {car_id: hull for car_id, hull in hulls.items() if hull is not None}
    chosen: dict[int, Box] = {}
    problems: list[tuple[str, str]] = []
    candidates: list[tuple[float, int, Box]] = []
    for box, car_id in boxes:
        if car_id is None and visible:
            overlap, best = max((iou(box, hull), -other) for other, hull in visible.items())
            candidates.append((overlap, -best, box))
        elif car_id in hulls and car_id not in chosen:
            chosen[car_id] = box
        else:
            problems.append(("unmatched_box", f"{place}: {box} of car {car_id}"))
    for overlap, car_id, box in sorted(candidates, key=lambda item: -item[0]):
        if overlap >= rules.min_iou and car_id not in chosen:
            chosen[car_id] = box
        else:
            problems.append(("unmatched_box", f"{place}: {box}, overlap {overlap:.2f} with car {car_id}"))
    return chosen, Tally.of(problems)


def hull_of(car: LabelledCar, width: int, height: int) -> Box | None:
    """The smallest box round the car's valid points, or None without any."""
    points_xy = car.points_xy[car.valid(width, height)]
    if not len(points_xy):
        return None
    (x1, y1), (x2, y2) = points_xy.min(0).tolist(), points_xy.max(0).tolist()
    return x1, y1, x2, y2


def widen(box: Box, rules: BoxRules) -> Box:
    """Add the shares of the box's own sides that `BoxRules` names."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    near, far = rules.widen_left_top, rules.widen_right_bottom
    return x1 - near * width, y1 - near * height, x2 + far * width, y2 + far * height


def window_of(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The whole pixels (left, top, right, bottom) that a box touches in an image of this size."""
    x1, y1, x2, y2 = box
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    return left, top, min(width, math.ceil(x2)), min(height, math.ceil(y2))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    shared_w = min(a[2], b[2]) - max(a[0], b[0])
    shared_h = min(a[3], b[3]) - max(a[1], b[1])
    if shared_w <= 0 or shared_h <= 0:
        return 0.0
    shared = shared_w * shared_h
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def rows_in_window(car: LabelledCar, window: tuple[int, int, int, int], width: int, height: int) -> NDArray[np.float64]:
    """Float64 [K, 3] rows (x, y, valid) in the crop's own pixels.

    A point outside the crop keeps its coordinates with valid 0; one that isn't labelled is (0, 0, 0).
    """
    left, top, right, bottom = window
    x, y = car.points_xy.T
    inside = car.valid(width, height) & (x >= left) & (x < right) & (y >= top) & (y < bottom)
    rows = np.concatenate([car.points_xy - (left, top), inside[:, None]], axis=1)
    return np.where(car.labelled[:, None], rows, 0.0).round(4)
