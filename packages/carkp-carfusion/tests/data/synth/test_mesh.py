from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.synth.mesh import box, first_hit, from_grid, join
from carkp_carfusion.data.synth.types import Array


def moller_trumbore(triangle: Array, origin: Array, direction: Array) -> float:
    """One ray against one triangle, by solving for (distance, u, v)."""
    a, b, c = triangle
    matrix = np.stack([-direction, b - a, c - a], axis=1)
    if abs(np.linalg.det(matrix)) < 1e-12:
        return np.inf
    distance, u, v = np.linalg.solve(matrix, origin - a)
    return float(distance) if distance > 1e-9 and u >= 0 and v >= 0 and u + v <= 1 else np.inf


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_first_hit_equals_the_solution_triangle_by_triangle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    triangles, origin, rays = rng.normal(size=(12, 3, 3)), rng.normal(size=3) * 2, rng.normal(size=(6, 3))
    expected = [min(moller_trumbore(triangle, origin, ray) for triangle in triangles) for ray in rays]
    assert first_hit(triangles, origin, rays) == pytest.approx(expected)


def test_a_box_is_hit_on_its_near_face_and_nothing_beside_it() -> None:
    mesh = box(np.array([0.0, -1, 0]), np.array([2.0, 1, 1]), 0)
    rays = np.array([[1.0, 0, 0], [1.0, 1.0, 0]])
    assert first_hit(mesh.triangles, np.array([-3.0, 0.1, 0.5]), rays) == pytest.approx([3, np.inf])
    assert first_hit(np.zeros((0, 3, 3)), np.zeros(3), rays) == pytest.approx([np.inf, np.inf])


def test_boxes_and_grids_face_outwards() -> None:
    solid = box(np.zeros(3), np.ones(3), 0)
    assert ((solid.centres - 0.5) * solid.face_normals).sum(-1).min() > 0
    assert np.allclose((solid.normals[:, 0] * solid.face_normals).sum(-1), np.linalg.norm(solid.face_normals, axis=1))
    angle = np.arange(12) * (np.pi / 6)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(12)], axis=-1)
    for order in (1, -1):
        tube = from_grid(np.stack([ring, ring + np.array([0, 0, 1])])[:, ::order], 3, closed=True)
        assert (tube.centres[:, :2] * tube.face_normals[:, :2]).sum(-1).min() > 0
        assert np.allclose(np.abs(np.linalg.norm(tube.normals, axis=-1)), 1)
        assert np.allclose(tube.normals[..., :2], tube.corners[..., :2], atol=1e-6)  # smooth over the seam as well


def test_placing_rotates_and_moves() -> None:
    mesh = join([box(np.zeros(3), np.ones(3), 0), box(np.ones(3), 2 * np.ones(3), 1)])
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    placed = mesh.placed(quarter, np.array([5.0, 0, 0]))
    assert np.allclose(placed.corners[..., 0], 5 - mesh.corners[..., 1])
    assert np.allclose(placed.normals[..., 1], mesh.normals[..., 0])
    assert list(placed.panel) == [0] * 5 + [1] * 5
