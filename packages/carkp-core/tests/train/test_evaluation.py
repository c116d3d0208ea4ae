"""Evaluations overlap where model and processor allow it, with the same metrics in the same order."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_toys import Near, SpotModel, make_context, spot_loader

from carkp_core.quant.integer_network import IntegerNetwork
from carkp_core.train.environment import plain_environment
from carkp_core.train.evaluation import Evaluated, evaluate, may_overlap
from carkp_core.train.interrupts import StoppedError
from carkp_core.train.loaders import open_loader
from carkp_core.train.processors import MultiBatchProcessor


class Threaded(SpotModel):
    """A reentrant model of which a part has threads of its own; notes who calls."""

    reentrant = True

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network.own_threads = True
        self.callers: list[str] = []

    def forward(self, data: dict[str, Any]) -> Tensor:
        self.callers.append(threading.current_thread().name)
        assert torch.get_num_threads() == 1 or threading.current_thread() is threading.main_thread()
        found: Tensor = super().forward(data)
        return found


class OwnProcessor(MultiBatchProcessor):
    """A third party's processor, of which nothing is known."""


def evaluated(folder: Path, model: nn.Module, processor: Any) -> tuple[dict[str, float], list[list[int]]]:
    class Order:
        def on_evaluated(self, evaluated: Evaluated) -> None:
            order.append(evaluated.batch["index"].tolist())

    order: list[list[int]] = []
    with plain_environment(make_context(folder)) as environment:
        loader = open_loader(spot_loader(22), environment, training=False)
        values, samples = evaluate(model, loader, processor, [Near()], environment, [Order()])
    assert samples == 22
    return values, order


def test_overlapping_changes_nothing(tmp_path: Path) -> None:
    plain = MultiBatchProcessor(need_grad_update=False)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Threaded()
    expected, order = evaluated(tmp_path, model, OwnProcessor(need_grad_update=False))
    assert set(model.callers) == {"MainThread"}
    model.callers.clear()
    found = evaluated(tmp_path, model, plain)
    assert found == (expected, order)
    assert order[0] == [0, 1, 2, 3]
    assert order[-1] == [20, 21]
    assert "MainThread" not in model.callers


def test_a_stop_leaves_no_thread(tmp_path: Path) -> None:
    class Stopped(Threaded):
        def forward(self, data: dict[str, Any]) -> Tensor:
            if len(self.callers) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(data)

    model = Stopped()
    with pytest.raises(StoppedError):
        evaluated(tmp_path, model, MultiBatchProcessor(need_grad_update=False))
    assert len(model.callers) < 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("carkp-")]


@pytest.mark.parametrize("own_threads", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_both_marks_are_needed(own_threads: bool, reentrant: bool) -> None:
    model = Threaded()
    model.reentrant = reentrant
    model.network.own_threads = own_threads
    assert may_overlap(model, MultiBatchProcessor()) == (own_threads and reentrant)
    assert not may_overlap(model, OwnProcessor())
    assert not may_overlap(model, MultiBatchProcessor(batch_transforms=[dict]))


def test_an_integer_network_overlaps() -> None:
    assert IntegerNetwork.reentrant
    assert IntegerNetwork.own_threads
    assert not may_overlap(nn.Flatten(), MultiBatchProcessor())
