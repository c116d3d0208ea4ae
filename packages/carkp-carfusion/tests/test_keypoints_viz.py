from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carkp_carfusion.data.colour import rgb_to_yuv444
from carkp_carfusion.data.images import read_image
from carkp_carfusion.keypoints_viz import KeypointsViz
from carkp_carfusion.models.heatmap_codec import HeatmapCodec
from carkp_carfusion.skeleton import plain_skeleton
from carkp_core.errors import ConfigError
from carkp_core.train.evaluation import Evaluated

POINTS = torch.tensor([[[20.0, 20.0, 0.9], [44.0, 40.0, 0.3]]])


def picture() -> np.ndarray:
    rows, cols = np.mgrid[0:64, 0:64]
    return np.stack([2 * rows + 60, 2 * cols + 60, np.full_like(rows, 90)], axis=-1).astype(np.uint8)


def batch(truth: bool = False) -> dict[str, Any]:
    yuv = torch.from_numpy(rgb_to_yuv444(picture())).permute(2, 0, 1).float()
    made: dict[str, Any] = {"img": ((yuv - 128) / 128)[None], "img_name": ["a.jpg"]}
    if truth:
        made |= {"gt_ldmk": POINTS[..., :2] + 6, "gt_ldmk_attr": torch.ones(1, 2)}
    return made


def test_the_image_is_the_one_that_went_in(tmp_path: Path) -> None:
    image = KeypointsViz(tmp_path).image(batch()["img"][0])
    assert np.abs(image.astype(int) - picture()).max() <= 2
    rgb = torch.from_numpy(picture()).permute(2, 0, 1).float()
    assert np.array_equal(KeypointsViz(tmp_path, mean=0, std=255, to_yuv=False).image(rgb / 255), picture())


def test_the_first_batches_are_drawn_and_no_more(tmp_path: Path) -> None:
    viz = KeypointsViz(tmp_path / "viz", num_batches=2)
    for number in range(4):
        viz.on_evaluated(Evaluated(batch(), POINTS, (), number))
    assert sorted(path.name for path in (tmp_path / "viz").iterdir()) == ["batch-0000.jpg", "batch-0001.jpg"]
    assert read_image(tmp_path / "viz" / "batch-0000.jpg").shape[0] > 64


def test_points_below_the_threshold_are_left_out(tmp_path: Path) -> None:
    plain = KeypointsViz(tmp_path, threshold=1.1).sheet(batch(), POINTS)
    one = KeypointsViz(tmp_path, threshold=0.5).sheet(batch(), POINTS)
    both = KeypointsViz(tmp_path).sheet(batch(), POINTS)
    assert 0 < (one != plain).any(-1).sum() < (both != plain).any(-1).sum()


def test_known_landmarks_are_drawn_beside_the_prediction(tmp_path: Path) -> None:
    viz = KeypointsViz(tmp_path)
    assert (viz.sheet(batch(truth=True), POINTS) != viz.sheet(batch(), POINTS)).any()


def test_heatmaps_are_decoded_first(tmp_path: Path) -> None:
    viz = KeypointsViz(tmp_path)
    centres = torch.tensor([[[21.5, 21.5, 1.0], [45.5, 41.5, 1.0]]])  # cells' centres, so decoding is exact
    heatmaps, _ = HeatmapCodec((16, 16), 4).encode(centres[0, :, :2].numpy(), [1, 1])
    drawn = viz.sheet(batch(), torch.from_numpy(heatmaps)[None])
    assert np.array_equal(drawn, viz.sheet(batch(), centres))


def test_a_skeleton_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the skeleton does not fit the model"):
        KeypointsViz(tmp_path, skeleton=plain_skeleton(5)).sheet(batch(), POINTS)
    assert KeypointsViz(tmp_path, skeleton=plain_skeleton(2)).sheet(batch(), POINTS).ndim == 3
