"""A frame's scene: camera, light, cars and things put where they stand.

Shapes: ``P`` points.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.body import Body, build
from carkp_carfusion.data.synth.camera import Camera, look
from carkp_carfusion.data.synth.coat import Coat, dress
from carkp_carfusion.data.synth.difficulty import Difficulty
from carkp_carfusion.data.synth.light import Light, make_light
from carkp_carfusion.data.synth.mesh import Mesh
from carkp_carfusion.data.synth.place import Place, camera_site, candidate_poses, hidden_by_blocks
from carkp_carfusion.data.synth.shapes import STYLES, vary
from carkp_carfusion.data.synth.sprites import OCCLUDER_KINDS, STREET_KINDS, Sprite
from carkp_carfusion.data.synth.types import Array

#: The length that `Difficulty.apparent_length` speaks of.
MIDDLING_LENGTH_M = 4.5
_CANDIDATES = 900
_MIN_DEPTH_M = 1.2


@frozen(eq=False)
class Car:
    """A dressed body standing in the world.

    Attributes
    ----------
    body : Body
    coat : Coat
    rotation : float64 [3, 3]
    offset : float64 [3]
        World = rotation @ own + offset.
    mesh : Mesh
        The body's mesh in the world.
    keypoints : float64 [14, 3]
        In the world, ids 1..14 in order.
    """

    body: Body
    coat: Coat
    rotation: Array
    offset: Array
    mesh: Mesh
    keypoints: Array


@frozen(eq=False)
class Thing:
    """A cut-out standing in the world: its foot [3], metres."""

    sprite: Sprite
    foot: Array
    mirrored: bool


@frozen(eq=False)
class Scene:
    """All there is in a frame."""

    camera: Camera
    place: Place
    light: Light
    cars: tuple[Car, ...]
    things: tuple[Thing, ...]


def stand(body: Body, coat: Coat, x: float, y: float, yaw: float) -> Car:
    """Put a dressed body on the ground at (x, y), heading along ``yaw``."""
    c, s = math.cos(yaw), math.sin(yaw)
    rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    offset = np.array([x, y, 0.0])
    return Car(body, coat, rotation, offset, body.mesh.placed(rotation, offset), body.keypoints @ rotation.T + offset)


def make_scene(
    place: Place,
    size_wh: tuple[int, int],
    difficulty: Difficulty,
    sprites: dict[str, tuple[Sprite, ...]],
    rng: np.random.Generator,
) -> Scene:
    """Draw a scene; a camera that finds too few cars is replaced a few times."""
    wanted = int(rng.integers(difficulty.cars[0], difficulty.cars[1] + 1))
    best: tuple[Camera, list[Car]] | None = None
    for _ in range(4):
        camera = _camera(place, size_wh, rng)
        cars = _place_cars(camera, place, difficulty, wanted, rng)
        if best is None or len(cars) > len(best[1]):
            best = camera, cars
        if len(cars) >= min(wanted, difficulty.cars[0]):
            break
    assert best is not None
    camera, cars = best
    light = make_light(rng, overcast=difficulty.overcast, low_sun=difficulty.low_sun)
    things = _street_things(camera, place, difficulty, sprites, cars, rng)
    things += _occluders(camera, difficulty, sprites, cars, rng)
    return Scene(camera, place, light, tuple(cars), tuple(things))


def _camera(place: Place, size_wh: tuple[int, int], rng: np.random.Generator) -> Camera:
    x, y, yaw = camera_site(place, rng)
    height = float(rng.uniform(*place.camera_height))
    hfov = float(rng.uniform(*place.hfov_deg))
    vfov = 2 * math.atan(math.tan(math.radians(hfov) / 2) * size_wh[1] / size_wh[0])
    # Aim so that the horizon lies in the upper part of the picture: the street fills the rest.
    pitch = vfov * float(rng.uniform(0.08, 0.3)) + 0.025 * (height - 1.5)
    roll = math.radians(float(rng.normal(0, 0.7)))
    return look(size_wh, hfov, np.array([x, y, height]), yaw=yaw, pitch=pitch, roll=roll)


def _place_cars(
    camera: Camera, place: Place, difficulty: Difficulty, wanted: int, rng: np.random.Generator
) -> list[Car]:
    poses = candidate_poses(place, rng, _CANDIDATES, difficulty.turning)
    ground = np.column_stack([poses[:, :2], np.full(len(poses), 0.7)])
    local = camera.to_camera(ground)
    depth = local[:, 2]
    width = camera.size_wh[0]
    apparent = camera.focal_px * MIDDLING_LENGTH_M / np.maximum(depth, 0.1) / width
    low, high = difficulty.apparent_length
    good = (depth > 2) & (apparent > low) & (apparent < high)
    good &= np.abs(local[:, 0]) < depth * (width / 2 / camera.focal_px) * (1.1 if difficulty.truncation else 0.95)
    poses, depth = poses[good], depth[good]
    sight = np.column_stack([camera.rotation[0, :2]]).T * 2.4
    for shift in (-1, 0, 1):
        clear = ~hidden_by_blocks(place, camera.position[:2], poses[:, :2] + shift * sight)
        poses, depth = poses[clear], depth[clear]
    cars: list[Car] = []
    boxes: list[tuple[Array, float]] = []
    for pose, away in zip(poses[:160], depth[:160], strict=True):
        if len(cars) == wanted:
            break
        shape = vary(STYLES[int(rng.choice(len(STYLES), p=place.styles))], rng, difficulty.body_variation)
        may_stick_out = rng.random() < difficulty.truncation
        corners = footprint(shape.length, shape.width, pose)
        if any(
            ground_overlap(corners, footprint(c.body.shape.length, c.body.shape.width, p))
            for c, p in zip(cars, _poses(cars), strict=True)
        ):
            continue
        box = _box(camera, corners, shape.height)
        if box is None or not _fits(box, boxes, away, camera.size_wh, may_stick_out, difficulty.max_overlap):
            continue
        body = build(shape, rng)
        cars.append(stand(body, dress(body, rng, place.paints), float(pose[0]), float(pose[1]), float(pose[2])))
        boxes.append((box, float(away)))
    return cars


def _poses(cars: list[Car]) -> list[Array]:
    return [np.array([c.offset[0], c.offset[1], math.atan2(c.rotation[1, 0], c.rotation[0, 0])]) for c in cars]


def footprint(length: float, width: float, pose: Array, margin: float = 0.25) -> Array:
    """[4, 2] corners of a car's rectangle on the ground, widened by ``margin`` metres."""
    c, s = math.cos(pose[2]), math.sin(pose[2])
    half = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * [length / 2 + margin, width / 2 + margin]
    return np.asarray(half @ np.array([[c, s], [-s, c]]) + pose[:2])


def ground_overlap(a: Array, b: Array) -> bool:
    """Whether two convex quadrilaterals [4, 2] overlap (separating axes)."""
    for quad in (a, b):
        for axis in (quad[1] - quad[0], quad[2] - quad[1]):
            on_a, on_b = a @ axis, b @ axis
            if on_a.max() <= on_b.min() or on_b.max() <= on_a.min():
                return False
    return True


def _box(camera: Camera, corners: Array, height: float) -> Array | None:
    """[4] x0, y0, x1, y1 of a car's bounding solid in the picture; None when it comes too close to the camera."""
    solid = np.concatenate([np.column_stack([corners, np.full(4, z)]) for z in (0.0, height)])
    pixels, depth = camera.project(solid)
    if depth.min() < _MIN_DEPTH_M:
        return None
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def _fits(
    box: Array,
    others: list[tuple[Array, float]],
    depth: float,
    size_wh: tuple[int, int],
    may_stick_out: bool,
    max_overlap: float,
) -> bool:
    width, height = size_wh
    inside = _area(np.array([max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)]))
    if not may_stick_out and (box[0] < 3 or box[1] < 3 or box[2] > width - 3 or box[3] > height - 3):
        return False
    if inside < 0.35 * _area(box):
        return False
    for other, other_depth in others:
        shared = _area(np.concatenate([np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])]))
        hidden = box if depth > other_depth else other
        if shared > max_overlap * _area(hidden):
            return False
    return True


def _area(box: Array) -> float:
    return float(max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0))


def _clear_of_cars(foot: Array, cars: list[Car], margin: float = 0.25) -> bool:
    for car in cars:
        own = (foot - car.offset) @ car.rotation
        if abs(own[0]) < car.body.shape.length / 2 + margin and abs(own[1]) < car.body.shape.width / 2 + margin:
            return False
    return True


def _pick(sprites: dict[str, tuple[Sprite, ...]], kinds: tuple[str, ...], rng: np.random.Generator) -> Sprite:
    choices = sprites[kinds[int(rng.integers(len(kinds)))]]
    return choices[int(rng.integers(len(choices)))]


def _street_things(
    camera: Camera,
    place: Place,
    difficulty: Difficulty,
    sprites: dict[str, tuple[Sprite, ...]],
    cars: list[Car],
    rng: np.random.Generator,
) -> list[Thing]:
    """Trees, posts and people beside the road; where little overlap is allowed, none in front of a car."""
    things = []
    for _ in range(int(rng.integers(difficulty.street_objects[0], difficulty.street_objects[1] + 1))):
        sprite = _pick(sprites, STREET_KINDS, rng)
        for _ in range(12):
            away, across = float(rng.uniform(7, 45)), float(rng.uniform(-0.62, 0.62))
            foot = _on_ground(camera, away, across)
            beside = _off_road(place, foot)
            hides = difficulty.max_overlap < 0.1 and _hides_a_car(camera, foot, sprite, cars)
            if (
                beside
                and not hides
                and _clear_of_cars(foot, cars)
                and not hidden_by_blocks(place, camera.position[:2], foot[None, :2])[0]
            ):
                things.append(Thing(sprite, foot, bool(rng.random() < 0.5)))
                break
    return things


def _occluders(
    camera: Camera,
    difficulty: Difficulty,
    sprites: dict[str, tuple[Sprite, ...]],
    cars: list[Car],
    rng: np.random.Generator,
) -> list[Thing]:
    """Things between the camera and some car."""
    things: list[Thing] = []
    for _ in range(int(rng.integers(difficulty.occluders[0], difficulty.occluders[1] + 1)) if cars else 0):
        sprite = _pick(sprites, OCCLUDER_KINDS, rng)
        car = cars[int(rng.integers(len(cars)))]
        target = car.offset + car.rotation[:, 0] * car.body.shape.length * float(rng.uniform(-0.55, 0.55))
        for _ in range(6):
            share = float(rng.uniform(0.55, 0.93))
            foot = camera.position + share * (target - camera.position)
            foot = np.array([foot[0], foot[1], 0.0])
            if camera.to_camera(foot)[2] > 3.5 and _clear_of_cars(foot, cars):
                things.append(Thing(sprite, foot, bool(rng.random() < 0.5)))
                break
    return things


def _on_ground(camera: Camera, away: float, across: float) -> Array:
    forward = camera.rotation[2, :2] / np.linalg.norm(camera.rotation[2, :2])
    right = camera.rotation[0, :2]
    return np.array([*(camera.position[:2] + away * (forward + across * right)), 0.0])


def _off_road(place: Place, foot: Array) -> bool:
    x, y = abs(float(foot[0])), abs(float(foot[1]))
    road = place.road_half + 0.3
    if place.kind == "street":
        return y > road
    if place.kind == "crossing":
        return x > road and y > road
    return max(x, y) > road


def _hides_a_car(camera: Camera, foot: Array, sprite: Sprite, cars: list[Car]) -> bool:
    pixels, depth = camera.project(foot)
    half = 0.5 * sprite.width_m * camera.focal_px / depth
    for car in cars:
        own, away = camera.project(car.mesh.centres)
        if away.min() > depth and pixels[0] + half > own[:, 0].min() and pixels[0] - half < own[:, 0].max():
            return True
    return False
