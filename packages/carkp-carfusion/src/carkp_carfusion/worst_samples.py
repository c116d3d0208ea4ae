"""The samples that a model is worst at: kept while it is evaluated, drawn afterwards.

Shapes: ``N`` batch, ``K`` keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

Points = NDArray[np.float64]


@frozen(eq=False)
class WorstSample:
    """A sample, its error and its prediction ``[K, 2 or 3]`` in pixels of the stored image."""

    index: int
    error: float
    predicted: Points


class WorstSamples:
    """The ``count`` samples with the largest errors so far; of equals, those with the lowest index."""

    def __init__(self, count: int = 16) -> None:
        self.count = count
        self.kept: list[WorstSample] = []

    def update(self, batch: Mapping[str, Any], predicted: Tensor, errors: Tensor) -> None:
        """Look at a batch.

        Parameters
        ----------
        batch:
            ``index`` and ``transform_xy [N, 2, 3]``, stored pixels to input pixels. Without them nothing is kept.
        predicted:
            ``[N, K, 2 or 3]``, in input pixels.
        errors:
            ``[N]``. NaN, which a prediction that is not finite has, ranks above all numbers; a sample without valid
            points is for the caller to leave out, with minus infinity.
        """
        if "index" not in batch or "transform_xy" not in batch:
            return
        ranks = torch.nan_to_num(errors.double(), nan=math.inf, posinf=math.inf, neginf=-math.inf)
        for place in ranks.argsort(descending=True, stable=True)[: self.count].tolist():
            rank = float(ranks[place])
            if rank == -math.inf or (len(self.kept) >= self.count and rank < self.kept[-1].error):
                break
            points = _to_stored(predicted[place], torch.as_tensor(batch["transform_xy"][place]))
            self.kept.append(WorstSample(int(batch["index"][place]), rank, points))
        self.kept.sort(key=lambda sample: (-sample.error, sample.index))
        del self.kept[self.count :]

    def draw(self, dataset: Any, path: Path) -> None:
        """Draw the samples with their errors as one sheet; nothing if there are none.

        ``dataset.raw(index)`` gives the stored image and landmarks, ``dataset.skeleton`` what to connect.
        """
        from carkp_carfusion.data.images import write_image
        from carkp_carfusion.visualize import contact_sheet

        if self.kept and hasattr(dataset, "raw"):
            tiles = [_tile(sample, dataset) for sample in self.kept]
            write_image(path, contact_sheet(tiles, title=f"The {len(tiles)} worst samples"))


def _to_stored(predicted: Tensor, transform_xy: Tensor) -> Points:
    """Map one sample's points from input pixels back to the stored image's."""
    affine = transform_xy.detach().cpu().numpy().astype(np.float64)
    points: Points = predicted.detach().cpu().numpy().astype(np.float64)
    xy = np.linalg.solve(affine[:, :2], (points[:, :2] - affine[:, 2]).T).T
    return np.concatenate([xy, points[:, 2:]], axis=1)


def _tile(sample: WorstSample, dataset: Any, side_px: int = 240) -> tuple[NDArray[np.uint8], str]:
    """Draw one sample at the size of its tile, with a caption."""
    from carkp_carfusion.data.geometry import fit_size, move_points, resize_image, scaling
    from carkp_carfusion.skeleton import plain_skeleton
    from carkp_carfusion.visualize import draw_comparison

    raw = dataset.raw(sample.index)
    height, width = raw["img"].shape[:2]
    tile_hw = fit_size((height, width), (side_px, side_px))
    larger = scaling(tile_hw[1] / width, tile_hw[0] / height)
    predicted = sample.predicted.copy()
    predicted[:, :2] = move_points(larger, predicted[:, :2])
    # What is not finite cannot be drawn: such points are put at the tile's corner, where their red lines show them.
    predicted = np.nan_to_num(predicted, nan=0.0, posinf=0.0, neginf=0.0)
    truth_xy = move_points(larger, np.asarray(raw["gt_ldmk"], dtype=np.float64))
    skeleton = getattr(dataset, "skeleton", None) or plain_skeleton(len(predicted))
    drawn = draw_comparison(resize_image(raw["img"], tile_hw), predicted, truth_xy, raw["gt_ldmk_attr"], skeleton)
    return drawn, f"{raw.get('img_name', sample.index)}\nmean error {100 * sample.error:.1f} % of the box"
