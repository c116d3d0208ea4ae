from __future__ import annotations

import pytest
import torch

from carkp_carfusion.models.loss import MSELoss
from carkp_core.errors import ConfigError


def maps(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_weighted_mean_over_all_cells() -> None:
    pred, target, weight = maps(0), maps(1), maps(2).clamp(min=0)
    total = 0.0
    for p, t, w in zip(pred.flatten().tolist(), target.flatten().tolist(), weight.flatten().tolist(), strict=True):
        total += w * (p - t) ** 2
    assert MSELoss()(pred, target, weight).item() == pytest.approx(total / pred.numel(), rel=1e-12)
    assert MSELoss("sum", loss_weight=3.0)(pred, target, weight).item() == pytest.approx(3 * total, rel=1e-12)
    assert MSELoss("none")(pred, target, weight).shape == pred.shape


def test_without_weights_it_is_the_plain_squared_error() -> None:
    pred, target = maps(0), maps(1)
    assert torch.allclose(MSELoss()(pred, target), torch.nn.functional.mse_loss(pred, target))


def test_a_cell_without_weight_has_no_influence_whatever_it_holds() -> None:
    pred, target = maps(0).requires_grad_(), maps(1)
    weight = torch.ones_like(target)
    weight[:, 1] = 0
    broken = target.clone()
    broken[:, 1] = float("nan")
    loss = MSELoss()(pred, broken, weight)
    loss.backward()
    assert pred.grad is not None
    assert torch.isfinite(loss)
    assert torch.equal(pred.grad[:, 1], torch.zeros_like(pred.grad[:, 1]))
    assert pred.grad[:, 0].abs().min() > 0


def test_the_mean_over_equal_parts_is_the_mean_over_the_batch() -> None:
    pred, target, weight = maps(0), maps(1), (maps(2) > 0).double()
    weight[0] = 0  # a part with fewer valid points than the other
    parts = [MSELoss()(pred[i : i + 2], target[i : i + 2], weight[i : i + 2]) for i in (0, 2)]
    assert (sum(parts) / 2).item() == pytest.approx(MSELoss()(pred, target, weight).item(), rel=1e-12)


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown reduction"):
        MSELoss(reduction="average")
