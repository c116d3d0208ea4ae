"""Keypoint metrics: pure functions first, accumulators on top.

Shapes: ``N`` batch, ``K`` keypoints, ``A`` thresholds.

The variant of PCK matters, so here it is in full. PCK@alpha is the share of valid points whose prediction is closer
than (strictly) ``alpha`` times the longer side of the box round that sample's *valid* points, counted over all points
of all samples together (micro average). A sample whose valid points all coincide has a box of size 0: no prediction is
strictly closer than that, so its points count as missed. AUC is the mean of PCK at 0.005, 0.010, ..., 0.100.

Accumulators hold integers only (distances in steps of 2**-20 pixels), so that a sum over processes is exact and no
order of samples changes a digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from carkp_carfusion.models.heatmap_codec import HeatmapDecoder
from carkp_carfusion.worst_samples import WorstSamples
from carkp_core.errors import ConfigError

AUC_ALPHAS = tuple(step / 200 for step in range(1, 21))
REPORT_ALPHAS = (0.02, 0.05, 0.1)
#: Distances are summed as whole multiples of this, in pixels: a sum that is exact in any order.
DISTANCE_STEP_PX = 2.0**-20
#: A prediction further away than this counts as this far: 2**27 such points still fit the sum.
MAX_DISTANCE_PX = 2.0**16
#: Rows of the counts, so that all processes' states have one shape.
MAX_KEYPOINTS = 512

#: Columns of the counts: samples, valid points, their distances, their predictions that are not finite, hits.
_SAMPLES, _POINTS, _STEPS, _LOST, _FIRST_HIT = range(5)


def distances(pred_xy: Tensor, gt_xy: Tensor) -> Tensor:
    """Return the distance of each point, float64 ``[N, K]``, of ``[N, K, 2]`` each. Never writes into an argument."""
    found: Tensor = torch.linalg.vector_norm(pred_xy.double() - gt_xy.double(), dim=-1)
    return found


def box_sides(gt_xy: Tensor, valid: Tensor) -> Tensor:
    """Return the longer side of the box round the valid points, float64 ``[N]``; 0 where a sample has none.

    Parameters
    ----------
    gt_xy:
        ``[N, K, 2]``.
    valid:
        ``[N, K]``, positive where a point is valid.
    """
    keep = (valid > 0)[..., None]
    xy = gt_xy.double()
    low = torch.where(keep, xy, torch.inf).amin(dim=-2)
    high = torch.where(keep, xy, -torch.inf).amax(dim=-2)
    return (high - low).amax(dim=-1).clamp(min=0)


def pck_hits(pred_xy: Tensor, gt_xy: Tensor, valid: Tensor, alphas: Sequence[float]) -> Tensor:
    """Return which points are valid and hit at each threshold, bool ``[N, K, A]``."""
    limits = box_sides(gt_xy, valid)[:, None, None] * torch.tensor(alphas, dtype=torch.float64, device=gt_xy.device)
    return (distances(pred_xy, gt_xy)[..., None] < limits) & (valid > 0)[..., None]


def pck(pred_xy: Tensor, gt_xy: Tensor, valid: Tensor, alpha: float) -> float:
    """Return PCK@alpha of ``pred_xy [N, K, 2]``, a fraction; NaN without a valid point."""
    return _ratio(int(pck_hits(pred_xy, gt_xy, valid, [alpha]).sum()), int((valid > 0).sum()))


def auc(pred_xy: Tensor, gt_xy: Tensor, valid: Tensor) -> float:
    """Return the mean of PCK at 0.005, 0.010, ..., 0.100; NaN without a valid point."""
    return _ratio(int(pck_hits(pred_xy, gt_xy, valid, AUC_ALPHAS).sum()), len(AUC_ALPHAS) * int((valid > 0).sum()))


def sample_errors(pred_xy: Tensor, gt_xy: Tensor, valid: Tensor) -> Tensor:
    """Return each sample's mean distance over its box's longer side, float64 ``[N]``; NaN without valid points.

    It ranks samples: a box of size 0 gives infinity, or NaN where the prediction is exact.
    """
    keep = valid > 0
    total = torch.where(keep, distances(pred_xy, gt_xy), 0.0).sum(dim=-1)
    return total / keep.sum(dim=-1) / box_sides(gt_xy, valid)


def mean_keypoint_dist(pred_xy: Tensor, gt_xy: Tensor, valid: Tensor) -> float:
    """Return the mean distance of the valid points, in the points' pixels; NaN without one."""
    keep = valid > 0
    return float(distances(pred_xy, gt_xy)[keep].mean()) if bool(keep.any()) else float("nan")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


class KeypointMetric:
    """Counts over samples, kept per keypoint, from which every metric of this module follows.

    Parameters
    ----------
    feat_stride:
        Input pixels in a heatmap cell, used where the model's output is heatmaps.
    img_shape:
        Height and width of the input. If given, heatmaps must cover exactly that.
    post_process:
        Decodes heatmaps ``[N, K, h, w]`` to ``[N, K, 3]``; by default a ``HeatmapDecoder`` in mode ``averaged``.
    alphas:
        Thresholds of PCK to count beside those of the report.

    Raises
    ------
    ConfigError
        A threshold that is not positive; while counting, predictions that do not fit the landmarks.
    """

    name = "keypoints"

    def __init__(
        self,
        feat_stride: float = 4,
        img_shape: Sequence[int] | None = None,
        post_process: nn.Module | None = None,
        alphas: Sequence[float] = (),
    ) -> None:
        if not all(alpha > 0 for alpha in alphas):
            raise ConfigError("a threshold of PCK is not positive", seen=f"alpha={alphas}", allowed="for example 0.1")
        self.alphas = tuple(float(alpha) for alpha in alphas)
        self.feat_stride = feat_stride
        self.img_shape = None if img_shape is None else tuple(img_shape)
        self.post_process = post_process if post_process is not None else HeatmapDecoder(feat_stride)
        self._counted = tuple(sorted({*AUC_ALPHAS, *REPORT_ALPHAS, *self.alphas}))
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._counts = torch.zeros(MAX_KEYPOINTS, _FIRST_HIT + len(self._counted), dtype=torch.int64)

    def update(self, batch: Mapping[str, Any], output: Any) -> None:
        """Count a batch.

        Parameters
        ----------
        batch:
            ``gt_ldmk [N, K, 2]`` in input pixels and ``gt_ldmk_attr [N, K]``, positive where valid.
        output:
            Points ``[N, K, 2 or 3]`` in input pixels, or heatmaps ``[N, K, h, w]``, or a tuple that starts with either.
        """
        pred_xy = self.decode(output).detach()[..., :2].to("cpu", torch.float64)
        gt_xy = torch.as_tensor(batch["gt_ldmk"]).detach().to("cpu", torch.float64)
        if pred_xy.shape != gt_xy.shape:
            raise ConfigError(
                f"{self.name}: predictions and landmarks differ in number",
                seen=f"predictions {list(pred_xy.shape)}, gt_ldmk {list(gt_xy.shape)}",
                allowed="the same samples and keypoints in both",
                remedy="check decode_head.out_channels against the data set's number of keypoints",
            )
        n, k = gt_xy.shape[:2]
        if k > MAX_KEYPOINTS:
            raise ConfigError(f"{self.name}: too many keypoints", seen=str(k), allowed=f"at most {MAX_KEYPOINTS}")
        valid = torch.as_tensor(batch["gt_ldmk_attr"]).detach().to("cpu").reshape(n, k) > 0
        distance = distances(pred_xy, gt_xy)
        finite = torch.isfinite(distance)
        steps = torch.where(valid & finite, distance.clamp(max=MAX_DISTANCE_PX) / DISTANCE_STEP_PX, 0.0)
        rows = self._counts[:k]
        rows[:, _SAMPLES] += n
        rows[:, _POINTS] += valid.sum(dim=0)
        rows[:, _STEPS] += steps.round().long().sum(dim=0)
        rows[:, _LOST] += (valid & ~finite).sum(dim=0)
        rows[:, _FIRST_HIT:] += pck_hits(pred_xy, gt_xy, valid, self._counted).sum(dim=0)

    def decode(self, output: Any) -> Tensor:
        """Return points ``[N, K, 2 or 3]`` as they are, and heatmaps ``[N, K, h, w]`` decoded."""
        found: Tensor = output[0] if isinstance(output, (tuple, list)) else output
        if found.ndim == 3:
            return found
        covered = tuple(round(cells * self.feat_stride) for cells in found.shape[-2:])
        if self.img_shape is not None and covered != self.img_shape:
            raise ConfigError(
                f"{self.name}: heatmaps do not cover the image",
                seen=f"{found.shape[-2]}x{found.shape[-1]} cells of {self.feat_stride} pixels",
                allowed=f"img_shape {self.img_shape[0]}x{self.img_shape[1]}",
                remedy="set feat_stride to the image's size over the heatmap's",
            )
        decoded: Tensor = self.post_process(found)
        return decoded

    def compute(self) -> dict[str, float]:
        """Return the metric's values by name."""
        return self._report(self._counts.sum(dim=0))

    def companions(self) -> tuple[KeypointReport, ...]:
        """Return the fuller metric that ``predict`` reports beside this one."""
        return (KeypointReport(self.feat_stride, self.img_shape, self.post_process, self.alphas),)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the counts. The sum of several processes' states is the state of their joint samples.

        It has the same shape in every process, also in one that has seen no sample.
        """
        return {"counts": self._counts.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over counts that :meth:`state` returned, or a sum of such."""
        self._counts = state["counts"].to("cpu", torch.int64).clone()

    def _report(self, row: Tensor) -> dict[str, float]:
        alphas = sorted({*REPORT_ALPHAS, *self.alphas})
        values = {pck_key(alpha): self._pck(row, alpha) for alpha in alphas}
        return values | {"AUC": self._auc(row), "mean_dist": self._mean_dist(row)}

    def _pck(self, row: Tensor, alpha: float) -> float:
        return _ratio(int(row[_FIRST_HIT + self._counted.index(alpha)]), int(row[_POINTS]))

    def _auc(self, row: Tensor) -> float:
        hits = sum(int(row[_FIRST_HIT + self._counted.index(alpha)]) for alpha in AUC_ALPHAS)
        return _ratio(hits, len(AUC_ALPHAS) * int(row[_POINTS]))

    def _mean_dist(self, row: Tensor) -> float:
        """NaN as well if any prediction of a valid point is not finite."""
        return float("nan") if row[_LOST] else _ratio(int(row[_STEPS]), int(row[_POINTS])) * DISTANCE_STEP_PX


class PCKMetric(KeypointMetric):
    """PCK at one threshold or several, under the keys ``PCK@<alpha>``."""

    def __init__(
        self,
        alpha: float | Sequence[float] = 0.1,
        feat_stride: float = 4,
        img_shape: Sequence[int] | None = None,
        post_process: nn.Module | None = None,
    ) -> None:
        alphas = tuple(alpha) if isinstance(alpha, Sequence) else (alpha,)
        super().__init__(feat_stride, img_shape, post_process, alphas)
        self.name = pck_key(alphas[0]) if len(alphas) == 1 else "PCK"

    def compute(self) -> dict[str, float]:
        """Return PCK at this metric's thresholds, in their order."""
        total = self._counts.sum(dim=0)
        return {pck_key(alpha): self._pck(total, alpha) for alpha in self.alphas}


class MeanKeypointDist(KeypointMetric):
    """Mean distance of the valid points in input pixels, under the key ``mean_dist``."""

    name = "mean_dist"
    lower_is_better = True

    def compute(self) -> dict[str, float]:
        """Return the mean distance."""
        return {self.name: self._mean_dist(self._counts.sum(dim=0))}


class KeypointReport(KeypointMetric):
    """All that ``predict`` reports: PCK at 0.02, 0.05, 0.1 and at ``alphas``, AUC and mean distance.

    It also keeps a table per keypoint, and the worst of the samples that this process has seen.
    """

    name = "keypoint_report"

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.worst = WorstSamples()

    def update(self, batch: Mapping[str, Any], output: Any) -> None:
        """Count a batch, as ``KeypointMetric.update`` does."""
        super().update(batch, points := self.decode(output))
        gt_xy, valid = (torch.as_tensor(batch[key]).detach().cpu() for key in ("gt_ldmk", "gt_ldmk_attr"))
        valid = valid.reshape(gt_xy.shape[:-1]) > 0
        errors = sample_errors(points[..., :2].detach().cpu(), gt_xy, valid)
        self.worst.update(batch, points, torch.where(valid.any(dim=-1), errors, -torch.inf))

    def companions(self) -> tuple[KeypointReport, ...]:
        """Return none: this is the fullest."""
        return ()

    def table(self) -> tuple[dict[str, Any], ...]:
        """Return a row for each keypoint, in their order: ``keypoint``, ``points``, and the report of those points."""
        return tuple(
            {"keypoint": k, "points": int(row[_POINTS])} | self._report(row)
            for k, row in enumerate(self._counts)
            if row[_SAMPLES] > 0
        )

    def draw_worst(self, dataset: Any, path: Path) -> None:
        """Draw the samples with the largest mean error relative to their box, as one sheet."""
        self.worst.draw(dataset, path)


def pck_key(alpha: float) -> str:
    """Return the name of PCK at a threshold: ``PCK@0.05``."""
    return f"PCK@{alpha:g}"
