"""A depth buffer: which solid, and which of its quads, each subpixel shows.

The buffer is `SUPERSAMPLE` times finer than the picture in each direction; averaging it down gives smooth edges. It
stores inverse depth, which is affine in the picture over a flat quad, so that comparing needs no division.

Shapes: ``m`` quads of all meshes together, ``h w`` the buffer, ``n`` subpixels of one solid.
"""

from __future__ import annotations

import cv2
import numpy as np
from attrs import define, field

from carkp_carfusion.data.synth.camera import NEAR_M, Camera
from carkp_carfusion.data.synth.mesh import Mesh
from carkp_carfusion.data.synth.types import Array, Image

SUPERSAMPLE = 2
_SHIFT = 4
#: Pixels beyond which a corner is taken to be out of the picture for good (fixed-point limits of OpenCV).
_FAR_PX = 20000.0


@define(eq=False)
class DepthBuffer:
    """Inverse depth (1/m) and owner of every subpixel; owner 0 is the backdrop."""

    camera: Camera
    inverse_depth: Array = field(init=False)
    owner: Array = field(init=False)
    _next_owner: int = field(init=False, default=1)
    _scratch: Image = field(init=False)

    def __attrs_post_init__(self) -> None:
        width, height = (side * SUPERSAMPLE for side in self.camera.size_wh)
        self.inverse_depth = np.zeros((height, width), np.float32)
        self.owner = np.zeros((height, width), np.int32)
        self._scratch = np.zeros((height, width), np.uint8)

    def to_buffer(self, pixels_xy: Array) -> Array:
        """Picture pixels -> buffer pixels."""
        return np.asarray((pixels_xy + 0.5) * SUPERSAMPLE - 0.5)

    def add_mesh(self, mesh: Mesh) -> int:
        """Draw a mesh; its quad ``i`` owns its subpixels as ``returned + i``."""
        first = self._next_owner
        self._next_owner += len(mesh.panel)
        facing = np.flatnonzero((mesh.face_normals * (self.camera.position - mesh.centres)).sum(-1) > 0)
        pixels, depth = self.camera.project(mesh.corners[facing])
        buffer_xy = self.to_buffer(pixels)
        height, width = self.owner.shape
        low = np.floor(buffer_xy.min(axis=1)).astype(np.int64)
        high = np.ceil(buffer_xy.max(axis=1)).astype(np.int64) + 1
        seen = (depth.min(axis=1) > NEAR_M) & (high > 0).all(axis=1) & (low < [width, height]).all(axis=1)
        seen &= np.abs(buffer_xy).max(axis=(1, 2)) < _FAR_PX
        kept = np.flatnonzero(seen)
        planes = affine_over_quads(buffer_xy[kept], 1.0 / depth[kept][..., None])[..., 0].astype(np.float32)
        low, high = np.maximum(low[kept], 0), np.minimum(high[kept], [width, height])
        offsets = np.round((buffer_xy[kept] - low[:, None]) * (1 << _SHIFT)).astype(np.int32)
        across, down = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        for k, face in enumerate(facing[kept]):
            x0, y0 = low[k]
            x1, y1 = high[k]
            a, b, c = planes[k]
            mask = self._scratch[: y1 - y0, : x1 - x0]
            mask.fill(0)
            cv2.fillConvexPoly(mask, offsets[k], 1, cv2.LINE_8, _SHIFT)
            here = a * across[x0:x1] + (b * down[y0:y1] + c)
            there = self.inverse_depth[y0:y1, x0:x1]
            wins = (here > there) & mask.view(bool)
            np.copyto(there, here, where=wins)
            np.copyto(self.owner[y0:y1, x0:x1], first + face, where=wins)
        return first

    def add_billboard(self, alpha: Image, low_xy: tuple[int, int], depth: float) -> int:
        """Draw an upright cut-out whose mask ``alpha`` [h, w] (0 or more than 127) lies at buffer pixel ``low_xy``."""
        owner = self._next_owner
        self._next_owner += 1
        height, width = self.owner.shape
        x0, y0 = max(low_xy[0], 0), max(low_xy[1], 0)
        x1, y1 = min(low_xy[0] + alpha.shape[1], width), min(low_xy[1] + alpha.shape[0], height)
        if x0 < x1 and y0 < y1 and depth > NEAR_M:
            mask = alpha[y0 - low_xy[1] : y1 - low_xy[1], x0 - low_xy[0] : x1 - low_xy[0]] > 127
            there = self.inverse_depth[y0:y1, x0:x1]
            wins = mask & (there < 1.0 / depth)
            np.copyto(there, np.float32(1.0 / depth), where=wins)
            np.copyto(self.owner[y0:y1, x0:x1], owner, where=wins)
        return owner


def affine_over_quads(xy: Array, values: Array) -> Array:
    """Least-squares affine functions over quads.

    Parameters
    ----------
    xy : [m, 4, 2]
    values : [m, 4, c]

    Returns
    -------
    [m, 3, c]
        Coefficients of ``x``, ``y`` and 1. A quad seen edge on gets its mean.
    """
    centre = xy.mean(axis=1, keepdims=True)
    offset = xy - centre
    mean = values.mean(axis=1, keepdims=True)
    xx, yy = (offset[..., 0] ** 2).sum(-1), (offset[..., 1] ** 2).sum(-1)
    cross = (offset[..., 0] * offset[..., 1]).sum(-1)
    determinant = xx * yy - cross**2
    flat = determinant > 1e-3 * (xx + yy) + 1e-9
    safe = np.where(flat, determinant, 1.0)
    inverse = np.stack([np.stack([yy, -cross], -1), np.stack([-cross, xx], -1)], -2) / safe[:, None, None]
    slopes = inverse @ (offset.transpose(0, 2, 1) @ (values - mean)) * flat[:, None, None]
    constant = mean[:, 0] - (centre[:, 0, :, None] * slopes).sum(axis=1)
    return np.concatenate([slopes, constant[:, None]], axis=1)
