"""The 14 points of a car in the picture, and what can be seen of them.

Visibility, as the raw files say it: 1 visible, 2 hidden by something else, 3 hidden by the car itself. A point that is
hidden by both is 3, since that doesn't depend on what else stands in the street. It is decided by a ray from the camera
to the point against the very quads and cut-outs that are drawn, so it holds outside the picture as well.

Shapes: ``P`` = 14 points in the order of the ids 1..14.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.billboard import Billboard
from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.mesh import Mesh, first_hit
from carkp_carfusion.data.synth.scene import Car
from carkp_carfusion.data.synth.types import Array

VISIBLE, OCCLUDED, SELF_OCCLUDED = 1, 2, 3
#: A surface closer to a point than this doesn't hide it: points lie on the surface, and the surface is made of flats.
TOLERANCE_M = 0.06


@frozen(eq=False)
class CarLabel:
    """One car's labels.

    Attributes
    ----------
    points_xy : float64 [14, 2]
        Pixels; may lie outside the picture.
    visibility : int [14]
        1, 2 or 3.
    box : float64 [4]
        x0, y0, x1, y1 of the whole car's outline, clipped to the picture.
    """

    points_xy: Array
    visibility: Array
    box: Array


def label_car(camera: Camera, car: Car, others: Sequence[Car], billboards: Sequence[Billboard]) -> CarLabel:
    """The labels of ``car`` among ``others`` and cut-outs."""
    points_xy, depth = camera.project(car.keypoints)
    hidden_by_self = blocked(camera, car.keypoints, car.mesh)
    hidden_by_others = np.zeros(len(points_xy), bool)
    outline, _ = camera.project(car.mesh.corners.reshape(-1, 3))
    low, high = outline.min(axis=0), outline.max(axis=0)
    for other in others:
        theirs, _ = camera.project(other.mesh.corners.reshape(-1, 3))
        if (theirs.max(axis=0) > points_xy.min(axis=0)).all() and (theirs.min(axis=0) < points_xy.max(axis=0)).all():
            hidden_by_others |= blocked(camera, car.keypoints, other.mesh)
    for board in billboards:
        hidden_by_others |= board.covers(points_xy) & (depth > board.depth + TOLERANCE_M)
    visibility = np.where(hidden_by_self, SELF_OCCLUDED, np.where(hidden_by_others, OCCLUDED, VISIBLE))
    limit = np.array(camera.size_wh) - 1
    box = np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)])
    return CarLabel(points_xy, visibility, box)


def blocked(camera: Camera, points: Array, mesh: Mesh) -> Array:
    """[P] whether the mesh lies between the camera and each world point [P, 3]."""
    facing = (mesh.face_normals * (camera.position - mesh.centres)).sum(-1) > 0
    shown = Mesh(mesh.corners[facing], mesh.normals[facing], mesh.panel[facing])
    rays = points - camera.position
    reach = first_hit(shown.triangles, camera.position, rays)
    return np.asarray(reach < 1 - TOLERANCE_M / np.linalg.norm(rays, axis=1))


def label_lines(labels: Sequence[CarLabel]) -> str:
    """The text of a ``gt`` file: ``x,y,keypoint_id,car_id,visibility``."""
    lines = [
        f"{x:.2f},{y:.2f},{point},{car},{seen}"
        for car, label in enumerate(labels)
        for point, ((x, y), seen) in enumerate(zip(label.points_xy, label.visibility, strict=True), start=1)
    ]
    return "".join(line + "\n" for line in lines)


def box_lines(labels: Sequence[CarLabel]) -> str:
    """The text of a ``bb`` file: ``x1,y1,x2,y2,car_id``."""
    return "".join(",".join(f"{v:.2f}" for v in label.box) + f",{car}\n" for car, label in enumerate(labels))
