"""Inference on single images: there and back through the transforms, drawn at the image's own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.geometry import move_points
from carkp_carfusion.data.images import read_image, write_image
from carkp_carfusion.data.transforms import Normalize, RandomPadLdmkData, Resize, ToTensor
from carkp_carfusion.infer import KeypointInference, points_of
from carkp_carfusion.skeleton import CARFUSION, Skeleton
from carkp_core.errors import ConfigError, DataError

TRANSFORMS = (
    Resize(img_scale=(64, 64), keep_ratio=True),
    RandomPadLdmkData(size=(64, 64), random=False),
    ToTensor(to_yuv=True),
    Normalize(mean=128.0, std=128.0),
)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(5, 200), width=st.integers(5, 200))
def test_points_come_back_to_the_images_own_pixels(height, width):
    inference = KeypointInference(TRANSFORMS)
    sample = inference.preprocess(picture(height, width))
    assert sample["img"].shape == (3, 64, 64)
    truth_xy = np.random.default_rng(1).uniform(0, (width - 1, height - 1), (len(CARFUSION), 2))
    output = np.concatenate([move_points(sample["transform_xy"], truth_xy), np.full((len(CARFUSION), 1), 0.5)], axis=1)
    answer = inference.postprocess(torch.from_numpy(output), sample)
    assert (answer["width"], answer["height"]) == (width, height)
    assert [point["name"] for point in answer["keypoints"]] == list(CARFUSION.keypoints)
    np.testing.assert_allclose(points_of(answer)[:, :2], truth_xy, atol=1e-3)


def test_the_picture_has_the_images_size_and_the_points_on_it():
    inference = KeypointInference((), skeleton={"name": "one", "keypoints": ["spot"], "colours": [[255, 0, 0]]})
    image = np.zeros((90, 150, 3), np.uint8)
    answer = {"keypoints": [{"name": "spot", "x": 100.0, "y": 40.0, "confidence": 1.0}]}
    drawn = inference.draw(image, answer)
    assert drawn.shape == image.shape
    assert not image.any()
    assert drawn[40, 100].tolist() == [255, 0, 0]
    faint = KeypointInference((), inference.skeleton, min_confidence=0.5)
    answer["keypoints"][0]["confidence"] = 0.4
    np.testing.assert_array_equal(faint.draw(image, answer), image)


def test_a_skeleton_of_another_size_gets_numbered_points():
    inference = KeypointInference(TRANSFORMS)
    answer = inference.postprocess(torch.zeros(3, 3), inference.preprocess(picture(20, 20)))
    assert [point["name"] for point in answer["keypoints"]] == ["point_0", "point_1", "point_2"]
    fixed = KeypointInference(TRANSFORMS, skeleton=Skeleton("two", ("a", "b")))
    with pytest.raises(ConfigError, match="does not fit the model"):
        fixed.postprocess(torch.zeros(3, 3), fixed.preprocess(picture(20, 20)))


def test_images_are_read_and_written(tmp_path: Path):
    inference = KeypointInference(TRANSFORMS)
    image = picture(11, 13)
    inference.write(tmp_path / "new" / "image.png", image)
    np.testing.assert_array_equal(inference.read(tmp_path / "new" / "image.png"), image)
    write_image(tmp_path / "photo.jpg", image)
    assert inference.read(tmp_path / "photo.jpg").shape == read_image(tmp_path / "photo.jpg").shape == (11, 13, 3)
    with pytest.raises(DataError, match="cannot be read"):
        inference.read(tmp_path / "missing.jpg")


def test_what_cannot_be_inferred_is_said():
    inference = KeypointInference(TRANSFORMS)
    sample = inference.preprocess(picture(20, 20))
    with pytest.raises(ConfigError, match="no list of points"):
        inference.postprocess(torch.zeros(12, 16, 16), sample)
    with pytest.raises(ConfigError, match="do not make a tensor"):
        KeypointInference(TRANSFORMS[:2]).preprocess(picture(20, 20))
