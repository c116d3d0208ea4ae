"""One frame: scene, picture, labels. A function of (seed, split, sequence, frame) and of nothing else.

Shapes: ``H W`` the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.backdrop import paint_backdrop
from carkp_carfusion.data.synth.billboard import Billboard, to_billboard
from carkp_carfusion.data.synth.labels import CarLabel, label_car
from carkp_carfusion.data.synth.light import Light
from carkp_carfusion.data.synth.raster import DepthBuffer
from carkp_carfusion.data.synth.scene import Car, Scene, Thing
from carkp_carfusion.data.synth.shade import Patch, composite, shade_billboard, shade_mesh
from carkp_carfusion.data.synth.types import Array

#: A convex outline is this much larger than the car in it, about.
_OUTLINE_FILL = 0.85


@frozen(eq=False)
class Frame:
    """A drawn frame: picture float32 [H, W, 3] (blue, green, red, 0..255, before the sensor) and its labels."""

    picture: Array
    labels: tuple[CarLabel, ...]


def draw(scene: Scene, min_visible: float, rng: np.random.Generator) -> Frame:
    """Draw a scene and label the cars that show at least ``min_visible`` of themselves."""
    buffer = DepthBuffer(scene.camera)
    firsts = [buffer.add_mesh(car.mesh) for car in scene.cars]
    boards = [board for thing in scene.things if (board := to_billboard(scene.camera, thing))]
    owners = [buffer.add_billboard(board.picture[:, :, 3], board.low_xy, board.depth) for board in boards]

    light = scene.light
    shadows = [polygon for car in scene.cars for polygon in _car_shadow(car, light)]
    shadows += [_thing_shadow(thing, light) for thing in scene.things]
    contacts = [_contact(car) for car in scene.cars]
    picture = paint_backdrop(scene.camera, scene.place, light, shadows, contacts, rng)

    of_cars = [
        shade_mesh(buffer, car.mesh, first, car.coat, (car.rotation, car.offset), light)
        for car, first in zip(scene.cars, firsts, strict=True)
    ]
    patches = [patch for patch in of_cars if patch]
    for board, owner in zip(boards, owners, strict=True):
        lit = np.clip(board.picture[:, :, :3] * (light.ambient + 0.6 * light.sun), 0, 255).astype(np.uint8)
        patch = shade_billboard(buffer, owner, lit, board.low_xy)
        if patch:
            patches.append(patch)
    composite(picture, patches)
    return Frame(picture, _labels(scene, of_cars, boards, min_visible))


def _labels(
    scene: Scene, patches: Sequence[Patch | None], boards: Sequence[Billboard], min_visible: float
) -> tuple[CarLabel, ...]:
    labels = []
    for index, (car, patch) in enumerate(zip(scene.cars, patches, strict=True)):
        outline, _ = scene.camera.project(car.mesh.corners.reshape(-1, 3))
        area = cv2.contourArea(cv2.convexHull(outline.astype(np.float32)))
        if patch is not None and patch.coverage.sum() >= min_visible * _OUTLINE_FILL * area:
            others = [*scene.cars[:index], *scene.cars[index + 1 :]]
            labels.append(label_car(scene.camera, car, others, boards))
    return tuple(labels)


def _cast(points: Array, light: Light) -> Array:
    """World points [P, 3] moved along the sun's rays to the ground."""
    return np.asarray(points - light.to_sun * (points[:, 2:] / light.to_sun[2]))


def _hull(ground: Array) -> Array:
    outline = cv2.convexHull(ground[:, :2].astype(np.float32))[:, 0].astype(float)
    return np.column_stack([outline, np.zeros(len(outline))])


def _car_shadow(car: Car, light: Light) -> list[Array]:
    points = car.mesh.corners.reshape(-1, 3)
    shoulder = car.body.shape.shoulder_z
    low, high = points[points[:, 2] < shoulder + 0.05], points[points[:, 2] > shoulder - 0.12]
    return [_hull(_cast(part, light)) for part in (low, high)]


def _contact(car: Car) -> Array:
    half = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * [0.46 * car.body.shape.length, 0.42 * car.body.shape.width]
    return np.column_stack([half, np.zeros(4)]) @ car.rotation.T + car.offset


def _thing_shadow(thing: Thing, light: Light) -> Array:
    across = np.array([-light.to_sun[1], light.to_sun[0], 0.0])
    across /= np.linalg.norm(across) + 1e-9
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    width, height = thing.sprite.width_m, thing.sprite.height_m
    up = height * (0.5 + 0.5 * np.sin(angle))
    points = thing.foot + np.cos(angle)[:, None] * (0.45 * width * across) + up[:, None] * [0.0, 0.0, 1.0]
    return _cast(points, light)
