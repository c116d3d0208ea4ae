from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.synth.camera import Camera, look

angles = st.floats(-3.1, 3.1)


@settings(max_examples=25, deadline=None)
@given(yaw=angles, pitch=st.floats(-0.5, 0.5), roll=st.floats(-0.2, 0.2))
def test_axes_are_a_right_handed_frame(yaw: float, pitch: float, roll: float) -> None:
    camera = look((640, 480), 50, np.array([1.0, 2, 3]), yaw=yaw, pitch=pitch, roll=roll)
    assert np.allclose(camera.rotation @ camera.rotation.T, np.eye(3))
    assert np.linalg.det(camera.rotation) == pytest.approx(1)


def test_straight_ahead_is_the_middle_and_up_is_up(camera: Camera) -> None:
    level = look((641, 361), 50, np.zeros(3), yaw=0.0, pitch=0.0)
    (x, y), depth = level.project(np.array([10.0, 0, 0]))
    assert (x, y, depth) == pytest.approx((320, 180, 10))
    left_and_up, _ = level.project(np.array([10.0, 1, 1]))
    assert left_and_up[0] < 320
    assert left_and_up[1] < 180


def test_rays_invert_the_projection(camera: Camera) -> None:
    points = np.array([[1.0, 3, 0.5], [-2, 9, 2]])
    pixels, depth = camera.project(points)
    assert np.allclose(camera.position + camera.rays(pixels) * depth[:, None], points)


def test_a_plane_homography_agrees_with_the_projection(camera: Camera) -> None:
    origin, u, v = np.array([1.0, 2, 0]), np.array([0.5, 0, 0]), np.array([0, 0, 2.0])
    image = camera.plane_homography(origin, u, v) @ [3.0, 0.25, 1.0]
    expected, _ = camera.project(origin + 3 * u + 0.25 * v)
    assert np.allclose(image[:2] / image[2], expected)


def test_clipping_keeps_what_is_seen_whole(camera: Camera) -> None:
    square = np.array([[-1.0, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 1, 0]])
    assert np.allclose(camera.clip(square), camera.project(square)[0])


def test_clipping_cuts_at_the_camera_and_at_the_margin(camera: Camera) -> None:
    road = np.array([[-3.0, -500, 0], [3, -500, 0], [3, 500, 0], [-3, 500, 0]])
    pixels = camera.clip(road, margin=0.25)
    assert len(pixels) >= 4
    assert np.all(pixels >= np.array([-0.25 * 640, -0.25 * 360]) - 1)
    assert np.all(pixels <= np.array([1.25 * 640, 1.25 * 360]) + 1)
    behind = road.copy()
    behind[:, 1] = -100
    assert camera.clip(behind).shape == (0, 2)
