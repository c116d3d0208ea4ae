"""Where the cars of a frame stand: poses that the place offers, the camera sees well and no other car takes.

Shapes: ``n`` candidate poses.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.difficulty import Difficulty
from carkp_carfusion.data.synth.place import Place, candidate_poses, hidden_by_blocks
from carkp_carfusion.data.synth.shapes import STYLES, BodyShape, vary
from carkp_carfusion.data.synth.types import Array

#: The length that `Difficulty.apparent_length` speaks of.
MIDDLING_LENGTH_M = 4.5
#: Nothing of a car comes closer to the camera's plane.
MIN_DEPTH_M = 1.2
#: Share of a car's box that must lie in the picture even when it may stick out.
_MIN_INSIDE = 0.35
_BORDER_PX = 3
_CANDIDATES = 3000
_TRIES = 80
_SMALLEST = (3.4, 1.55, 1.2)


@frozen(eq=False)
class Spot:
    """A car's shape and pose (x, y, yaw), its rectangle on the ground [4, 2] and its box in the picture [4]."""

    shape: BodyShape
    pose: Array
    ground: Array
    box: Array
    depth: float


def choose_spots(
    camera: Camera, place: Place, difficulty: Difficulty, wanted: int, rng: np.random.Generator
) -> list[Spot]:
    """Up to ``wanted`` spots that keep the difficulty's promises on size, overlap and truncation."""
    poses = _promising(camera, place, difficulty, candidate_poses(place, rng, _CANDIDATES, difficulty.turning))
    spots: list[Spot] = []
    for _ in range(_TRIES):
        if len(spots) == wanted or len(poses) == 0:
            break
        pose, poses = poses[0], poses[1:]
        shape = vary(STYLES[int(rng.choice(len(STYLES), p=place.styles))], rng, difficulty.body_variation)
        may_stick_out = rng.random() < difficulty.truncation
        ground = footprint(shape.length, shape.width, pose)
        if any(ground_overlap(ground, spot.ground) for spot in spots):
            continue
        boxes, nearest, depth = _boxes(camera, ground[None], shape.height)
        if nearest[0] < MIN_DEPTH_M or not (may_stick_out or _inside(boxes, camera)[0]):
            continue
        spot = Spot(shape, pose, ground, boxes[0], float(depth[0]))
        if _in_picture(spot.box, camera.size_wh) and _free(spot.box[None], depth, spots, difficulty.max_overlap)[0]:
            spots.append(spot)
            smallest, _, depths = _boxes(camera, footprint(*_SMALLEST[:2], poses), _SMALLEST[2])
            poses = poses[_free(smallest, depths, spots[-1:], difficulty.max_overlap)]
    return spots


def footprint(length: float, width: float, poses: Array, margin: float = 0.25) -> Array:
    """Corners [..., 4, 2] of the rectangles that cars at poses [..., 3] take, widened by ``margin`` metres."""
    c, s = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    half = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * [length / 2 + margin, width / 2 + margin]
    turn = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)
    return np.asarray(half @ turn + poses[..., None, :2])


def ground_overlap(a: Array, b: Array) -> bool:
    """Whether two rectangles [4, 2] overlap (separating axes)."""
    for quad in (a, b):
        for axis in (quad[1] - quad[0], quad[2] - quad[1]):
            on_a, on_b = a @ axis, b @ axis
            if on_a.max() <= on_b.min() or on_b.max() <= on_a.min():
                return False
    return True


def _promising(camera: Camera, place: Place, difficulty: Difficulty, poses: Array) -> Array:
    """The poses of the right apparent size, in view, and not behind a building."""
    width = camera.size_wh[0]
    local = camera.to_camera(np.column_stack([poses[:, :2], np.full(len(poses), 0.7)]))
    apparent = camera.focal_px * MIDDLING_LENGTH_M / np.maximum(local[:, 2], 0.1) / width
    low, high = difficulty.apparent_length
    good = (local[:, 2] > 2) & (apparent > low) & (apparent < high)
    good &= np.abs(local[:, 0]) < 1.1 * local[:, 2] * (width / 2 / camera.focal_px)
    poses = poses[good]
    sideways = camera.rotation[0, :2] * 2.4
    for shift in (-1, 0, 1):
        poses = poses[~hidden_by_blocks(place, camera.position[:2], poses[:, :2] + shift * sideways)]
    if difficulty.truncation == 0 and len(poses):
        length, wide, height = _SMALLEST
        boxes, nearest, _ = _boxes(camera, footprint(length, wide, poses), height)
        poses = poses[_inside(boxes, camera) & (nearest > MIN_DEPTH_M)]
    return poses


def _boxes(camera: Camera, ground: Array, height: float) -> tuple[Array, Array, Array]:
    """Boxes [n, 4] of cars over rectangles [n, 4, 2], and the depths [n] of their nearest corner and their middle."""
    solid = np.concatenate([np.insert(ground, 2, z, axis=-1) for z in (0.0, height)], axis=1)
    pixels, depth = camera.project(solid)
    return np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1), depth.min(axis=1), depth.mean(axis=1)


def _inside(boxes: Array, camera: Camera) -> Array:
    limit = np.array(camera.size_wh) - _BORDER_PX
    return np.asarray((boxes[:, :2] > _BORDER_PX).all(axis=1) & (boxes[:, 2:] < limit).all(axis=1))


def _in_picture(box: Array, size_wh: tuple[int, int]) -> bool:
    return bool(_shared(box, np.array([0, 0, *size_wh])) >= _MIN_INSIDE * _area(box))


def _free(boxes: Array, depths: Array, spots: list[Spot], max_overlap: float) -> Array:
    """[n] whether neither a box [n, 4] nor any spot is covered too much by what is in front of it."""
    free = np.ones(len(boxes), bool)
    for spot in spots:
        hidden = np.where(depths > spot.depth, _area(boxes), _area(spot.box))
        free &= _shared(boxes, spot.box) <= max_overlap * hidden
    return free


def _area(boxes: Array) -> Array:
    return np.asarray(np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(axis=-1))


def _shared(a: Array, b: Array) -> Array:
    """Areas that boxes have in common."""
    return _area(np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], axis=-1))
