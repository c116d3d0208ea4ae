from __future__ import annotations

import numpy as np
import pytest

from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.mesh import box
from carkp_carfusion.data.synth.raster import SUPERSAMPLE, DepthBuffer, affine_over_quads


def test_the_nearer_solid_wins_in_either_order(camera: Camera) -> None:
    near, far = (box(np.array([-1.0, y, 0]), np.array([1.0, y + 1, top]), 0) for y, top in ((-2, 2), (4, 5)))
    pictures = []
    for order in ((near, far), (far, near)):
        buffer = DepthBuffer(camera)
        firsts = {id(mesh): buffer.add_mesh(mesh) for mesh in order}
        owner = buffer.owner
        pictures.append((owner >= firsts[id(near)]) & (owner < firsts[id(near)] + 5))
        (x, y), _ = camera.project(np.array([0.0, -2, 1]))
        assert pictures[-1][round(y * SUPERSAMPLE), round(x * SUPERSAMPLE)]
        assert (owner > 0).sum() > pictures[-1].sum()
    assert np.array_equal(*pictures)


def test_depth_is_exact_on_a_flat_face(camera: Camera) -> None:
    buffer = DepthBuffer(camera)
    buffer.add_mesh(box(np.array([-1.0, 0, 0]), np.array([1.0, 1, 2]), 0))
    point = np.array([0.3, 0.0, 1.1])
    pixel, depth = camera.project(point)
    x, y = np.round(buffer.to_buffer(pixel)).astype(int)
    assert buffer.inverse_depth[y, x] == pytest.approx(1 / depth, rel=2e-3)


def test_nothing_behind_or_beside_the_camera_is_drawn(camera: Camera) -> None:
    buffer = DepthBuffer(camera)
    buffer.add_mesh(box(np.array([-1.0, -20, 0]), np.array([1.0, -19, 2]), 0))
    buffer.add_mesh(box(np.array([60.0, 0, 0]), np.array([61.0, 1, 2]), 0))
    assert not buffer.owner.any()


def test_a_billboard_covers_its_mask_and_hides_behind_nearer_things(camera: Camera) -> None:
    buffer = DepthBuffer(camera)
    alpha = np.zeros((40, 60), np.uint8)
    alpha[:, 20:] = 255
    far = buffer.add_billboard(alpha, (100, 50), depth=10.0)
    near = buffer.add_billboard(alpha, (-30, 60), depth=5.0)
    hidden = buffer.add_billboard(alpha, (100, 50), depth=11.0)
    assert (buffer.owner == far).sum() == 40 * 40
    assert (buffer.owner == near).sum() == 40 * 30  # clipped at the left
    assert not (buffer.owner == hidden).any()


def test_affine_fits_are_exact_for_affine_values() -> None:
    rng = np.random.default_rng(0)
    xy = rng.normal(size=(7, 4, 2)) * 50
    coefficients = rng.normal(size=(3, 2))
    values = xy @ coefficients[:2] + coefficients[2]
    assert np.allclose(affine_over_quads(xy, values), coefficients)
    edge_on = np.zeros((1, 4, 2))
    edge_on[0, :, 0] = [0, 1, 2, 3]
    fit = affine_over_quads(edge_on, np.arange(4.0).reshape(1, 4, 1))
    assert fit[0, :, 0] == pytest.approx([0, 0, 1.5])
