from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from train_toys import Near

from carkp_core.train.distributed import World
from carkp_core.train.metrics import LossShow, Metric, reduced, update_loss, update_metric


def test_loss_show_averages_over_samples() -> None:
    metric = LossShow()
    assert math.isnan(metric.compute()["loss"])
    metric.update({"img": torch.zeros(3, 1)}, ("pred", torch.tensor(1.0)))
    metric.update({"img": torch.zeros(1, 1)}, ("pred", torch.tensor(5.0)))
    assert metric.compute() == {"loss": 2.0}
    other = LossShow()
    other.load_state(metric.state())
    assert other.compute() == {"loss": 2.0}
    metric.reset()
    assert math.isnan(metric.compute()["loss"])


def test_loss_show_takes_dicts_and_bare_losses() -> None:
    metric = LossShow(name="l")
    metric.update({"a": torch.tensor(1.0), "b": torch.tensor([2.0, 4.0])})
    assert metric.compute() == {"l": 4.0, "l_a": 1.0, "l_b": 3.0}
    bare = LossShow()
    bare.update(torch.tensor(2.0))
    assert bare.compute() == {"loss": 2.0}


def test_the_states_of_two_shares_add_up() -> None:
    whole, first, second = LossShow(), LossShow(), LossShow()
    for n, metric in ((1, first), (2, second), (3, second)):
        for each in (whole, metric):
            each.update({"img": torch.zeros(n, 1)}, (0, torch.tensor(float(n))))
    first.load_state({key: value + second.state()[key] for key, value in first.state().items()})
    assert first.compute() == whole.compute()


def test_reduced_keeps_the_metrics_order_and_the_first_of_a_name() -> None:
    class Constant(Near):
        def __init__(self, **values: float) -> None:
            self.values = values

        def compute(self) -> dict[str, float]:
            return self.values

    assert reduced([Constant(b=1, a=2), Constant(a=3, c=4)], World()) == {"b": 1, "a": 2, "c": 4}
    assert list(reduced([Constant(b=1, a=2), Constant(c=4)], World())) == ["b", "a", "c"]


@pytest.mark.parametrize("update", [update_metric, update_loss])
def test_update_functions_reach_every_metric(update: Any) -> None:
    metrics = [LossShow(), LossShow("again")]
    update(metrics, {"img": torch.zeros(1, 1)}, (0, torch.tensor(2.0)))
    assert [m.compute() for m in metrics] == [{"loss": 2.0}, {"again": 2.0}]


def test_toys_and_losses_satisfy_the_contract(tmp_path: Path) -> None:
    assert isinstance(LossShow(), Metric)
    assert isinstance(Near(), Metric)
