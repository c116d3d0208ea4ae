"""Losses on heatmaps.

Shapes: ``N`` batch, ``K`` keypoints, ``h w`` rows and columns of a heatmap.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from carkp_core.errors import ConfigError

REDUCTIONS = ("mean", "sum", "none")


class MSELoss(nn.Module):
    """Squared error, weighted cell by cell.

    Parameters
    ----------
    reduction:
        ``"mean"`` over all cells of all maps, ``"sum"``, or ``"none"``. The mean counts the cells that have no weight
        too: so the mean over a batch is the mean of the means over its equal parts, and training in several processes,
        or with accumulated gradients, follows the same loss as training in one.
    loss_weight:
        A factor on the result.

    Raises
    ------
    ConfigError
        An unknown ``reduction``.
    """

    def __init__(self, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ConfigError("MSELoss: unknown reduction", seen=repr(reduction), allowed=", ".join(REDUCTIONS))
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``pred`` against ``target``.

        Parameters
        ----------
        pred, target:
            ``[N, K, h, w]``.
        weight:
            ``[N, K, h, w]``, or any shape that broadcasts to it: the cells' weights, 0 where a keypoint is not valid.
            What stands in a cell without weight, NaN included, has no influence.
        """
        if pred.shape != target.shape:
            raise ConfigError(
                "MSELoss: the network's heatmaps and the targets differ in shape",
                seen=f"heatmaps {list(pred.shape)}, targets {list(target.shape)}",
                remedy="make the target's heatmap_shape and feat_stride fit the input size, a multiple of 32",
            )
        difference = pred - target
        if weight is None:  # noqa: SIM108
            error = difference.square()
        else:  # masked before squaring, so that a NaN reaches neither the loss nor a gradient
            error = torch.where(weight > 0, difference, 0.0).square() * weight
        if self.reduction == "mean":
            error = error.mean()
        elif self.reduction == "sum":
            error = error.sum()
        return error * self.loss_weight
