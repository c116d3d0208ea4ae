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
from carkp_carfusion.data.synth.place import Place, camera_site, hidden_by_blocks
from carkp_carfusion.data.synth.placement import Spot, choose_spots
from carkp_carfusion.data.synth.sprites import OCCLUDER_KINDS, STREET_KINDS, Sprite
from carkp_carfusion.data.synth.types import Array

_CAMERA_TRIES = 4


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
    best: tuple[Camera, list[Spot]] | None = None
    for _ in range(_CAMERA_TRIES):
        camera = _camera(place, size_wh, rng)
        spots = choose_spots(camera, place, difficulty, wanted, rng)
        if best is None or len(spots) > len(best[1]):
            best = camera, spots
        if len(spots) >= difficulty.cars[0]:
            break
    assert best is not None
    camera, spots = best
    cars = []
    for spot in spots:
        body = build(spot.shape, rng)
        x, y, yaw = (float(v) for v in spot.pose)
        cars.append(stand(body, dress(body, rng, place.paints), x, y, yaw))
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
