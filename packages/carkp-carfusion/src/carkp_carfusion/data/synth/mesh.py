"""Meshes of quads, and the rays that decide what hides a point.

Shapes: ``n`` vertices, ``m`` quads, ``P`` points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.types import Array


@frozen(eq=False)
class Mesh:
    """Quads in 3D, each with the part of the coat (texture) that lies on it.

    Attributes
    ----------
    corners : float64 [m, 4, 3]
        Corner positions, anticlockwise seen from outside, metres.
    normals : float64 [m, 4, 3]
        Unit normals at the corners (averaged over the part, for smooth shading).
    panel : int [m]
        Index of the coat's panel whose projection colours the quad.
    """

    corners: Array
    normals: Array
    panel: Array

    @property
    def centres(self) -> Array:
        """[m, 3] the middles of the quads."""
        return np.asarray(self.corners.mean(axis=1))

    @property
    def face_normals(self) -> Array:
        """[m, 3] unnormalised outward normals (cross product of the diagonals)."""
        return np.cross(self.corners[:, 2] - self.corners[:, 0], self.corners[:, 3] - self.corners[:, 1])

    @property
    def triangles(self) -> Array:
        """[2 m, 3, 3]: each quad cut along its first diagonal."""
        return np.concatenate([self.corners[:, [0, 1, 2]], self.corners[:, [0, 2, 3]]])

    def placed(self, rotation: Array, offset: Array) -> Mesh:
        """The mesh rotated by [3, 3] and then moved by [3]."""
        return Mesh(self.corners @ rotation.T + offset, self.normals @ rotation.T, self.panel)


def join(parts: Sequence[Mesh]) -> Mesh:
    """One mesh of several."""
    return Mesh(
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.panel for part in parts]),
    )


def from_grid(points: Array, panel: int | Array, *, closed: bool = False, inside: Array | None = None) -> Mesh:
    """A mesh over a grid of points [rows, columns, 3].

    Parameters
    ----------
    points : [rows, columns, 3]
    panel : int or [rows - 1, columns (- 1)]
        The panel of all quads, or of each.
    closed : bool
        Whether the last column joins the first.
    inside : [3], optional
        A point that the quads face away from; the grid's middle by default.
    """
    grid = np.concatenate([points, points[:, :1]], axis=1) if closed else points
    quads = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], axis=2)
    faces = np.cross(quads[:, :, 2] - quads[:, :, 0], quads[:, :, 3] - quads[:, :, 1])
    outward = quads.mean(axis=2) - (points.reshape(-1, 3).mean(axis=0) if inside is None else inside)
    sign = 1.0 if (faces * outward).sum() >= 0 else -1.0
    faces = faces * sign
    vertex = np.zeros_like(grid)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            vertex[rows, columns] += faces
    if closed:
        vertex[:, 0] += vertex[:, -1]
        vertex[:, -1] = vertex[:, 0]
    vertex /= np.linalg.norm(vertex, axis=-1, keepdims=True) + 1e-12
    normals = np.stack([vertex[:-1, :-1], vertex[:-1, 1:], vertex[1:, 1:], vertex[1:, :-1]], axis=2)
    panels = np.broadcast_to(np.asarray(panel), quads.shape[:2]).reshape(-1)
    order = [0, 1, 2, 3] if sign > 0 else [0, 3, 2, 1]
    return Mesh(quads.reshape(-1, 4, 3)[:, order], normals.reshape(-1, 4, 3)[:, order], panels)


def box(low: Array, high: Array, panel: int) -> Mesh:
    """An axis-aligned box without its floor, flat shaded."""
    x0, y0, z0 = low
    x1, y1, z1 = high
    corners = np.array(
        [
            [[x1, y0, z0], [x1, y1, z0], [x1, y1, z1], [x1, y0, z1]],
            [[x0, y1, z0], [x0, y0, z0], [x0, y0, z1], [x0, y1, z1]],
            [[x1, y1, z0], [x0, y1, z0], [x0, y1, z1], [x1, y1, z1]],
            [[x0, y0, z0], [x1, y0, z0], [x1, y0, z1], [x0, y0, z1]],
            [[x0, y0, z1], [x1, y0, z1], [x1, y1, z1], [x0, y1, z1]],
        ],
        dtype=float,
    )
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return Mesh(corners, np.repeat(normals[:, None], 4, axis=1), np.full(5, panel))


def first_hit(triangles: Array, origin: Array, directions: Array) -> Array:
    """Distances [P], in units of each direction's length, to the first triangle [T, 3, 3] each ray meets; inf if none.

    Möller and Trumbore's test from either side. All rays start at ``origin`` [3], so that each of its four determinants
    is one matrix product of the directions [P, 3] with vectors that belong to the triangles.
    """
    if len(triangles) == 0:
        return np.full(len(directions), np.inf)
    edge_1 = triangles[:, 1] - triangles[:, 0]
    edge_2 = triangles[:, 2] - triangles[:, 0]
    start = origin - triangles[:, 0]
    q = np.cross(start, edge_1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / (directions @ np.cross(edge_2, edge_1).T)
        u = (directions @ np.cross(edge_2, start).T) * inverse
        v = (directions @ q.T) * inverse
        distance = (q * edge_2).sum(-1) * inverse
        hit = np.isfinite(inverse) & (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 1e-9)
    return np.asarray(np.where(hit, distance, np.inf).min(axis=1))
