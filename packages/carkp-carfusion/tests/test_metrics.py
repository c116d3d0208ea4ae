from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from carkp_carfusion.metrics import (
    AUC_ALPHAS,
    REPORT_ALPHAS,
    KeypointMetric,
    KeypointReport,
    MeanKeypointDist,
    PCKMetric,
    auc,
    box_sides,
    mean_keypoint_dist,
    pck,
    sample_errors,
)
from carkp_carfusion.models.heatmap_codec import HeatmapCodec, HeatmapDecoder
from carkp_core.errors import ConfigError
from carkp_core.train.metrics import Metric


def samples(seed: int, n: int = 7, k: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions and landmarks within 128 pixels, some not valid, errors from exact to wild."""
    generator = torch.Generator().manual_seed(seed)
    gt_xy = 128 * torch.rand(n, k, 2, generator=generator)
    spread = 10 ** (torch.rand(n, k, 1, generator=generator) * 4 - 2)
    pred_xy = gt_xy + spread * torch.randn(n, k, 2, generator=generator)
    return pred_xy, gt_xy, (torch.rand(n, k, generator=generator) < 0.7).int()


def batch_of(gt_xy: Tensor, valid: Tensor) -> dict[str, Any]:
    return {"gt_ldmk": gt_xy, "gt_ldmk_attr": valid}


def test_of_a_distance_lower_is_better() -> None:
    assert MeanKeypointDist().lower_is_better
    assert not any(getattr(metric, "lower_is_better", False) for metric in (PCKMetric(), KeypointReport()))


def pck_by_loops(pred: Tensor, gt: Tensor, valid: Tensor, alpha: float) -> float:
    hit = counted = 0
    for p, g, v in zip(pred.tolist(), gt.tolist(), valid.tolist(), strict=True):
        kept = [xy for xy, is_valid in zip(g, v, strict=True) if is_valid]
        if not kept:
            continue
        side = max(max(c) - min(c) for c in zip(*kept, strict=True))
        for (px, py), (gx, gy), is_valid in zip(p, g, v, strict=True):
            if is_valid:
                counted += 1
                hit += math.hypot(px - gx, py - gy) < alpha * side
    return hit / counted if counted else math.nan


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.02, 0.05, 0.1, 0.33]))
def test_pck_equals_its_definition(seed: int, alpha: float) -> None:
    pred, gt, valid = samples(seed)
    expected = pck_by_loops(pred.double(), gt.double(), valid, alpha)
    assert pck(pred, gt, valid, alpha) == pytest.approx(expected, abs=1e-12)


def test_closer_means_strictly_closer() -> None:
    gt = torch.tensor([[[0.0, 0.0], [100.0, 50.0]]])
    valid = torch.ones(1, 2)
    on_the_line = gt + torch.tensor([10.0, 0.0])
    assert pck(on_the_line, gt, valid, 0.1) == 0
    assert pck(on_the_line - torch.tensor([0.001, 0.0]), gt, valid, 0.1) == 1


def test_the_box_is_that_of_valid_points() -> None:
    gt = torch.tensor([[[0.0, 0.0], [10.0, 4.0], [500.0, 500.0]]])
    assert box_sides(gt, torch.tensor([[1, 1, 0]])).tolist() == [10]
    assert box_sides(gt, torch.tensor([[1, 1, 1]])).tolist() == [500]
    assert box_sides(gt, torch.tensor([[0, 1, 0]])).tolist() == [0]
    assert box_sides(gt, torch.tensor([[0, 0, 0]])).tolist() == [0]


def test_points_of_a_box_without_size_count_as_missed() -> None:
    gt = torch.tensor([[[5.0, 5.0], [1.0, 1.0]], [[0.0, 0.0], [10.0, 10.0]]])
    valid = torch.tensor([[1, 0], [1, 1]])
    assert pck(gt, gt, valid, 0.1) == pytest.approx(2 / 3)


def test_without_a_valid_point_everything_is_nan() -> None:
    pred, gt, valid = samples(0)
    nothing = torch.zeros_like(valid)
    assert math.isnan(pck(pred, gt, nothing, 0.1))
    assert math.isnan(auc(pred, gt, nothing))
    assert math.isnan(mean_keypoint_dist(pred, gt, nothing))
    assert torch.isnan(sample_errors(pred, gt, nothing)).all()
    report = KeypointReport()
    assert all(math.isnan(value) for value in report.compute().values())
    report.update(batch_of(gt, nothing), pred)
    assert all(math.isnan(value) for value in report.compute().values())


def test_a_perfect_prediction() -> None:
    _, gt, valid = samples(0)
    report = KeypointReport()
    report.update(batch_of(gt, valid), gt)
    assert report.compute() == {"PCK@0.02": 1, "PCK@0.05": 1, "PCK@0.1": 1, "AUC": 1, "mean_dist": 0}


def test_the_report_equals_the_functions_and_auc_is_the_mean_over_twenty_thresholds() -> None:
    pred, gt, valid = samples(3, n=40)
    report = KeypointReport()
    for part in range(0, 40, 9):
        window = slice(part, part + 9)
        report.update(batch_of(gt[window], valid[window]), torch.cat([pred, torch.ones(40, 5, 1)], dim=2)[window])
    values = report.compute()
    assert list(values) == ["PCK@0.02", "PCK@0.05", "PCK@0.1", "AUC", "mean_dist"]
    for alpha in REPORT_ALPHAS:
        assert values[f"PCK@{alpha:g}"] == pck(pred, gt, valid, alpha)
    assert [f"{alpha:g}" for alpha in AUC_ALPHAS[:2] + AUC_ALPHAS[-1:]] == ["0.005", "0.01", "0.1"]
    assert values["AUC"] == pytest.approx(sum(pck(pred, gt, valid, alpha) for alpha in AUC_ALPHAS) / 20)
    assert values["mean_dist"] == pytest.approx(mean_keypoint_dist(pred, gt, valid), abs=2**-20)


def test_own_thresholds_are_added_to_the_report() -> None:
    pred, gt, valid = samples(3)
    metric = PCKMetric(alpha=[0.2, 0.15])
    metric.update(batch_of(gt, valid), pred)
    assert list(metric.compute()) == ["PCK@0.2", "PCK@0.15"]
    assert metric.compute()["PCK@0.2"] == pck(pred, gt, valid, 0.2)
    (report,) = metric.companions()
    report.update(batch_of(gt, valid), pred)
    assert set(report.compute()) == {"PCK@0.02", "PCK@0.05", "PCK@0.1", "PCK@0.15", "PCK@0.2", "AUC", "mean_dist"}


@pytest.mark.parametrize("build", [PCKMetric, MeanKeypointDist, KeypointReport])
def test_metrics_keep_the_contract_of_the_trainer(build: type[KeypointMetric]) -> None:
    metric = build()
    assert isinstance(metric, Metric)
    pred, gt, valid = samples(1)
    metric.update(batch_of(gt, valid), pred)
    values = metric.compute()
    assert values
    metric.reset()
    assert all(math.isnan(value) for value in metric.compute().values())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 12), min_size=2, max_size=4))
def test_states_of_parts_sum_to_the_state_of_the_whole_bit_by_bit(seed: int, cuts: list[int]) -> None:
    pred, gt, valid = samples(seed, n=12)
    whole = KeypointReport()
    whole.update(batch_of(gt, valid), pred)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    edges = [0, *sorted(cuts), 12]  # some parts are empty, as a process without samples is
    parts = []
    for low, high in itertools.pairwise(edges):
        part = KeypointReport()
        chosen = order[low:high]
        if len(chosen):
            part.update(batch_of(gt[chosen], valid[chosen]), pred[chosen])
        parts.append(part.state())
    assert len({value.shape for part in parts for value in part.values()}) == 1
    joint = KeypointReport()
    joint.load_state({name: sum((part[name] for part in parts), torch.tensor(0)) for name in parts[0]})
    assert joint.compute() == whole.compute()
    assert [row["mean_dist"] for row in joint.table()] == pytest.approx(
        [row["mean_dist"] for row in whole.table()], abs=0, nan_ok=True
    )


def test_a_state_is_a_copy() -> None:
    pred, gt, valid = samples(1)
    metric = PCKMetric()
    metric.update(batch_of(gt, valid), pred)
    before = metric.compute()
    metric.state()["counts"].zero_()
    assert metric.compute() == before


def test_the_table_has_one_row_per_keypoint() -> None:
    pred, gt, valid = samples(5, n=20, k=3)
    valid[:, 1] = 0
    report = KeypointReport()
    report.update(batch_of(gt, valid), pred)
    rows = report.table()
    assert [row["keypoint"] for row in rows] == [0, 1, 2]
    assert [row["points"] for row in rows] == valid.sum(dim=0).tolist()
    assert math.isnan(rows[1]["PCK@0.1"])
    weighted = sum(row["PCK@0.1"] * row["points"] for row in rows if row["points"])
    assert weighted / int(valid.sum()) == pytest.approx(report.compute()["PCK@0.1"])


def test_heatmaps_are_decoded_with_the_stride_or_the_given_post_process() -> None:
    _, gt, valid = samples(2, n=3)
    codec = HeatmapCodec((32, 32), 4)
    heatmaps = torch.stack([torch.from_numpy(codec.encode(points, torch.ones(5))[0]) for points in gt])
    dark = HeatmapDecoder(4, "dark")
    for post_process, decoder in ((None, HeatmapDecoder(4)), (dark, dark)):
        metric = MeanKeypointDist(feat_stride=4, post_process=post_process)
        metric.update(batch_of(gt, valid), (heatmaps, torch.tensor(0.0)))
        expected = mean_keypoint_dist(decoder(heatmaps)[..., :2], gt, valid)
        assert metric.compute()["mean_dist"] == pytest.approx(expected, abs=2**-20)


def test_predictions_that_are_not_finite_miss_and_show() -> None:
    _, gt, valid = samples(2)
    valid[0, 0] = 1
    pred = gt.clone()
    pred[0, 0] = float("nan")
    report = KeypointReport()
    report.update(batch_of(gt, valid), pred)
    values = report.compute()
    points = int(valid.sum())
    assert values["PCK@0.1"] == (points - 1) / points
    assert math.isnan(values["mean_dist"])


def test_landmarks_that_are_not_valid_may_hold_anything() -> None:
    pred, gt, valid = samples(2)
    expected = KeypointReport()
    expected.update(batch_of(gt, valid), pred)
    broken = torch.where(valid[..., None] > 0, gt, torch.nan)
    report = KeypointReport()
    report.update(batch_of(broken, valid), pred)
    assert report.compute() == expected.compute()


def test_no_argument_is_written_to() -> None:
    pred, gt, valid = samples(4)
    copies = pred.clone(), gt.clone(), valid.clone()
    report = KeypointReport()
    report.update(batch_of(gt, valid), pred)
    sample_errors(pred, gt, valid)
    for now, then in zip((pred, gt, valid), copies, strict=True):
        assert torch.equal(now, then)


def test_sample_errors_rank_samples_by_error_over_size() -> None:
    gt = torch.tensor([[[0.0, 0.0], [10.0, 0.0]], [[0.0, 0.0], [100.0, 0.0]]])
    errors = sample_errors(gt + torch.tensor([3.0, 4.0]), gt, torch.ones(2, 2))
    assert errors.tolist() == [0.5, 0.05]


@pytest.mark.parametrize(
    ("arguments", "message"), [({"alpha": 0}, "is not positive"), ({"alpha": [0.1, -1]}, "is not positive")]
)
def test_thresholds_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PCKMetric(**arguments)


def test_what_does_not_fit_is_named() -> None:
    pred, gt, valid = samples(0)
    with pytest.raises(ConfigError, match=r"PCK@0\.1: predictions and landmarks differ"):
        PCKMetric().update(batch_of(gt, valid), pred[:, :3])
    with pytest.raises(ConfigError, match="heatmaps do not cover the image"):
        PCKMetric(feat_stride=4, img_shape=(128, 128)).update(batch_of(gt, valid), torch.zeros(7, 5, 16, 16))
    with pytest.raises(ConfigError, match="too many keypoints"):
        PCKMetric().update(batch_of(torch.zeros(1, 600, 2), torch.ones(1, 600)), torch.zeros(1, 600, 2))
