"""The pinhole camera, and polygons clipped to what it sees.

Frames: the world is in metres, z up, the ground at z = 0. The camera's own frame is x right, y down, z forward. An
integer image coordinate is a pixel's centre.

Shapes: ``P`` points, ``V`` vertices of one polygon.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.types import Array

#: Nothing closer than this to the camera's plane is drawn.
NEAR_M = 0.4


@frozen(eq=False)
class Camera:
    """A pinhole camera without distortion.

    Attributes
    ----------
    size_wh : tuple of int
        Width and height of the picture in pixels.
    focal_px : float
        Focal length in pixels.
    rotation : float64 [3, 3]
        World to camera: rows are the camera's right, down and forward axes.
    position : float64 [3]
        The optical centre in the world, metres.
    """

    size_wh: tuple[int, int]
    focal_px: float
    rotation: Array
    position: Array

    @property
    def centre_xy(self) -> tuple[float, float]:
        """The principal point: the middle of the picture."""
        return (self.size_wh[0] - 1) / 2, (self.size_wh[1] - 1) / 2

    def to_camera(self, points: Array) -> Array:
        """World points [..., 3] in the camera's frame."""
        return np.asarray((points - self.position) @ self.rotation.T)

    def project(self, points: Array) -> tuple[Array, Array]:
        """World points [..., 3] -> pixels [..., 2] and depths [...] in metres (not clipped)."""
        local = self.to_camera(points)
        depth = local[..., 2]
        return local[..., :2] * (self.focal_px / depth[..., None]) + np.array(self.centre_xy), depth

    def rays(self, pixels_xy: Array) -> Array:
        """World directions [..., 3] through pixels [..., 2]; their forward component is 1."""
        x = (pixels_xy[..., 0] - self.centre_xy[0]) / self.focal_px
        y = (pixels_xy[..., 1] - self.centre_xy[1]) / self.focal_px
        return np.asarray(np.stack([x, y, np.ones_like(x)], axis=-1) @ self.rotation)

    def plane_homography(self, origin: Array, axis_u: Array, axis_v: Array) -> Array:
        """[3, 3] from plane coordinates (u, v, 1), at ``origin + u axis_u + v axis_v``, to homogeneous pixels."""
        columns = np.stack([axis_u, axis_v, origin - self.position], axis=1)
        x, y = self.centre_xy
        intrinsics = np.array([[self.focal_px, 0.0, x], [0.0, self.focal_px, y], [0.0, 0.0, 1.0]])
        return np.asarray(intrinsics @ self.rotation @ columns)

    def clip(self, polygon: Array, margin: float = 0.25) -> Array:
        """The part of a convex world polygon [V, 3] inside the view, as pixels [V', 2]; V' is 0 when none is.

        ``margin`` widens the view on each side, as a share of the picture, so that no edge made by the clipping shows.
        """
        width, height = self.size_wh
        tan_x, tan_y = (np.array([width, height]) / 2 * (1 + 2 * margin)) / self.focal_px
        points = self.to_camera(polygon)
        planes = (
            (0.0, 0.0, 1.0, -NEAR_M),
            (1.0, 0.0, tan_x, 0.0),
            (-1.0, 0.0, tan_x, 0.0),
            (0.0, 1.0, tan_y, 0.0),
            (0.0, -1.0, tan_y, 0.0),
        )
        for plane in planes:
            points = _clip_by(points, np.array(plane))
            if len(points) < 3:
                return np.zeros((0, 2))
        return np.asarray(points[:, :2] * (self.focal_px / points[:, 2:]) + np.array(self.centre_xy))


def look(
    size_wh: tuple[int, int], hfov_deg: float, position: Array, *, yaw: float, pitch: float, roll: float = 0.0
) -> Camera:
    """A camera at ``position`` looking along ``yaw`` (anticlockwise from +x), tilted down by ``pitch``; radians."""
    forward = np.array([math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), -math.sin(pitch)])
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    down = np.cross(forward, right)
    level = np.stack([right, down, forward])
    c, s = math.cos(roll), math.sin(roll)
    turn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    focal_px = size_wh[0] / 2 / math.tan(math.radians(hfov_deg) / 2)
    return Camera(size_wh, focal_px, turn @ level, np.asarray(position, dtype=float))


def _clip_by(points: Array, plane: Array) -> Array:
    """Sutherland-Hodgman against one plane; the side where ``plane . (x, y, z, 1) >= 0`` stays."""
    if len(points) == 0:
        return points
    side = points @ plane[:3] + plane[3]
    if (side >= 0).all():
        return points
    kept: list[Array] = []
    for here, there, a, b in zip(points, np.roll(points, -1, axis=0), side, np.roll(side, -1), strict=True):
        if a >= 0:
            kept.append(here)
        if (a >= 0) != (b >= 0):
            kept.append(here + (there - here) * (a / (a - b)))
    return np.array(kept) if kept else np.zeros((0, 3))
