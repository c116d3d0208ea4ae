"""Loaders are made fit for the machine, with one notice of what was changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from train_toys import Spots

from carkp_core.train import loader_fit
from carkp_core.train.distributed import World
from carkp_core.train.loader_fit import fitted, own_randomness, threaded
from carkp_core.train.loaders import LoaderPlan


class Unseeded(list[int]):
    """A data set of which nothing is known."""

    def __init__(self) -> None:
        super().__init__(range(10))


class Seeded(Unseeded):
    """A data set that derives its randomness itself."""

    def set_epoch(self, epoch: int) -> None:
        """Take note."""


def test_who_needs_the_global_generators() -> None:
    assert own_randomness(Spots(3))
    assert own_randomness(Seeded())
    assert not own_randomness(Unseeded())


def test_workers_and_pinning_are_capped_with_one_notice() -> None:
    said: list[str] = []
    plan = fitted(LoaderPlan(Spots(3), num_workers=1000, pin_memory=True), World(), said.append)
    assert 1 <= plan.num_workers < 1000
    assert plan.pin_memory == torch.cuda.is_available()
    assert len(said) == 1
    assert "num_workers 1000 ->" in said[0]
    said.clear()
    assert fitted(LoaderPlan(Spots(3)), World(), said.append).num_workers == 0
    assert said == []


def test_little_shared_memory_means_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_fit, "_free_shared_bytes", lambda: 1000)
    said: list[str] = []
    plan = fitted(LoaderPlan(Spots(3), 4, num_workers=1, passed_on={"prefetch_factor": 2}), World(), said.append)
    assert plan.num_workers == 0
    assert plan.passed_on == {}
    assert "shared memory" in said[0]


def test_the_users_threads_bound_the_workers() -> None:
    said: list[str] = []
    plan = fitted(LoaderPlan(Unseeded(), 2, num_workers=1000), World(), said.append, 1)
    assert plan.num_workers == 1
    assert [line.partition(" (")[0] for line in said] == ["data loaders: num_workers 1000 -> 1"]


@pytest.mark.parametrize(
    ("dataset", "cpus", "threads", "workers"),
    [(Seeded(), 2, None, 0), (Seeded(), 16, None, 8), (Seeded(), 16, 4, 0), (Unseeded(), 2, None, 8)],
    ids=["few-cores", "many-cores", "few-threads", "global-generators"],
)
def test_a_thread_loads_beside_a_model_with_threads(
    monkeypatch: pytest.MonkeyPatch, dataset: Any, cpus: int, threads: int | None, workers: int
) -> None:
    monkeypatch.setattr(loader_fit, "_cpus", lambda: cpus)
    said: list[str] = []
    assert threaded(LoaderPlan(dataset, 2, num_workers=8), World(), said.append, threads).num_workers == workers
    assert len(said) == (workers == 0)
    assert threaded(LoaderPlan(dataset, 2), World(), said.append, threads).num_workers == 0
    assert len(said) == (workers == 0), "nothing to say where there were no workers"
