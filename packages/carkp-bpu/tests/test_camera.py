"""The camera's path: RGB -> NV12 -> centred YUV444."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from carkp_bpu.camera import camera_input, nv12_to_centred, rgb_to_nv12
from carkp_core.colour import rgb_to_yuv444
from carkp_core.errors import BackendError, DataError

EVEN = st.integers(1, 6).map(lambda half: 2 * half)
IMAGES = st.tuples(EVEN, EVEN, st.just(3)).flatmap(lambda shape: hnp.arrays(np.uint8, shape))


@given(IMAGES)
def test_luma_passes_and_chroma_is_the_rounded_mean_of_each_block(image):
    height, width = image.shape[:2]
    yuv = rgb_to_yuv444(image).astype(int)
    centred = camera_input(image)
    assert centred.dtype == np.int8
    assert centred.shape == (3, height, width)
    np.testing.assert_array_equal(centred[0], yuv[..., 0] - 128)
    for y in range(0, height, 2):
        for x in range(0, width, 2):
            for channel in (1, 2):
                mean = (yuv[y : y + 2, x : x + 2, channel].sum() + 2) // 4
                assert (centred[channel, y : y + 2, x : x + 2] == mean - 128).all()


def test_nv12_is_laid_out_as_cameras_do():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 2:] = (255, 0, 0)
    nv12 = rgb_to_nv12(image)
    np.testing.assert_array_equal(nv12, [[0, 0, 76, 76], [0, 0, 76, 76], [128, 128, 85, 255]])
    np.testing.assert_array_equal(nv12_to_centred(nv12)[:, 0, 2], [76 - 128, 85 - 128, 127])


def test_a_grey_image_is_the_plain_444_image():
    image = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4, 3, axis=2)
    plain = rgb_to_yuv444(image).transpose(2, 0, 1).astype(np.int16) - 128
    np.testing.assert_array_equal(camera_input(image), plain)


@pytest.mark.parametrize("shape", [(3, 4, 3), (4, 5, 3), (0, 4, 3)])
def test_odd_sides_are_refused(shape):
    with pytest.raises(BackendError, match="even sides"):
        camera_input(np.zeros(shape, np.uint8))


def test_floats_are_refused():
    with pytest.raises(DataError, match="not an RGB image"):
        camera_input(np.zeros((4, 4, 3), np.float32))
