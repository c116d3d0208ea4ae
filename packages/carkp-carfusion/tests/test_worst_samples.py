from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from carkp_carfusion.data.geometry import compose, move_points, scaling, shift
from carkp_carfusion.data.images import read_image
from carkp_carfusion.metrics import KeypointReport
from carkp_carfusion.skeleton import plain_skeleton
from carkp_carfusion.worst_samples import WorstSamples

#: Stored pixels to input pixels: half the size, moved to the right.
AFFINE = compose(shift(7, 0), scaling(0.5, 0.5))


class StoredSamples:
    """Five grey pictures, 80 x 100, each with three points."""

    skeleton = plain_skeleton(3)

    def __len__(self) -> int:
        return 5

    def raw(self, index: int) -> dict[str, Any]:
        return {
            "img": np.full((80, 100, 3), 40 * index + 20, np.uint8),
            "gt_ldmk": np.array([[10, 10], [80, 15], [50, 70]], np.float32) + index,
            "gt_ldmk_attr": np.array([1, 1, int(index != 3)], np.float32),
            "img_name": f"picture-{index}.jpg",
        }


def batch_of(dataset: StoredSamples, indices: list[int]) -> dict[str, Any]:
    raw = [dataset.raw(i) for i in indices]
    return {
        "index": indices,
        "transform_xy": torch.from_numpy(np.stack([AFFINE] * len(raw))),
        "gt_ldmk": torch.from_numpy(np.stack([move_points(AFFINE, r["gt_ldmk"]) for r in raw])),
        "gt_ldmk_attr": torch.from_numpy(np.stack([r["gt_ldmk_attr"] for r in raw])),
    }


def report_over(dataset: StoredSamples, offsets: list[float]) -> KeypointReport:
    """Predictions that are off by so many pixels, in batches of two."""
    report = KeypointReport()
    for low in range(0, len(offsets), 2):
        indices = list(range(low, min(low + 2, len(offsets))))
        batch = batch_of(dataset, indices)
        report.update(batch, batch["gt_ldmk"] + torch.tensor([offsets[i] for i in indices])[:, None, None])
    return report


def test_the_worst_come_first_with_their_points_in_stored_pixels() -> None:
    dataset = StoredSamples()
    report = report_over(dataset, [1.0, 4.0, 0.0, 9.0, 2.0])
    assert [sample.index for sample in report.worst.kept] == [3, 1, 4, 0, 2]
    worst = report.worst.kept[0]
    np.testing.assert_allclose(worst.predicted, dataset.raw(3)["gt_ldmk"] + 2 * 9.0, atol=1e-4)


def test_only_so_many_are_kept_and_nan_is_worst() -> None:
    worst = WorstSamples(count=2)
    points = torch.zeros(3, 1, 2)
    transform = torch.from_numpy(np.stack([np.eye(2, 3)] * 3))
    for indices, errors in (([0, 1, 2], [0.3, 0.1, 0.2]), ([3, 4, 5], [0.2, float("nan"), -torch.inf])):
        worst.update({"index": indices, "transform_xy": transform}, points, torch.tensor(errors))
    assert [sample.index for sample in worst.kept] == [4, 0]


def test_batches_that_cannot_be_traced_back_are_not_kept() -> None:
    worst = WorstSamples()
    worst.update({"img": None}, torch.zeros(1, 1, 2), torch.ones(1))
    assert worst.kept == []


def test_a_sheet_is_drawn(tmp_path: Path) -> None:
    dataset = StoredSamples()
    report = report_over(dataset, [1.0, float("nan"), 0.0, 9.0, 2.0])
    report.draw_worst(dataset, tmp_path / "worst.png")
    sheet = read_image(tmp_path / "worst.png")
    assert sheet.shape[0] > 240
    red = (sheet[..., 0] > 200) & (sheet[..., 1] < 120) & (sheet[..., 2] < 120)
    assert red.sum() > 50


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    KeypointReport().draw_worst(StoredSamples(), tmp_path / "worst.png")
    assert not (tmp_path / "worst.png").exists()
