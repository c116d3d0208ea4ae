from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from train_toys import Spots, make_context, spot_loader

from carkp_core.catalog import Component
from carkp_core.config.recipe import Recipe
from carkp_core.context import Context
from carkp_core.errors import ConfigError, DataError
from carkp_core.train import loaders
from carkp_core.train.distributed import World
from carkp_core.train.loaders import EpochLoader, LoaderPlan


class Careless(Dataset[dict[str, Any]]):
    """Draws from every global generator, as many data sets do."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"draws": np.array([index, random.random(), np.random.rand(), torch.rand(()).item()])}


class Told(Careless):
    """Wants to be told the epoch."""

    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"draws": np.array([index, self.epoch])}


def recipe(context: Context, **arguments: Any) -> Recipe:
    return Recipe.of({"type": DataLoader, **arguments}, "float_trainer.data_loader", context)


def draws(loader: EpochLoader, epoch: int, skip: int = 0) -> torch.Tensor:
    return torch.cat([batch["draws"] for batch in loader.epoch(epoch, skip)])


@pytest.mark.parametrize("dataset", [Careless(), Told()], ids=["global-generators", "set-epoch"])
def test_samples_do_not_depend_on_workers_or_skipped_batches(dataset: Any) -> None:
    alone = EpochLoader(LoaderPlan(dataset, 3, shuffle=True), 7, World(), training=True)
    workers = EpochLoader(LoaderPlan(dataset, 3, shuffle=True, num_workers=2), 7, World(), training=True)
    state = torch.get_rng_state()
    for epoch in (0, 1, 4):
        whole = draws(alone, epoch)
        assert torch.equal(draws(workers, epoch), whole)
        assert torch.equal(draws(workers, epoch, skip=2), whole[6:])
    assert not torch.equal(draws(alone, 0), draws(alone, 1))
    assert torch.equal(torch.get_rng_state(), state), "loading must leave the model's generator alone"


class Damaged(Careless):
    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 4:
            raise DataError("an image does not decode", where="data[4]", remedy="pack again")
        return {"draws": np.zeros(2 + (index == 8))}


def same_shapes(samples: list[dict[str, Any]]) -> dict[str, Any]:
    if len({sample["draws"].shape for sample in samples}) > 1:
        raise DataError("samples differ in shape")
    return loaders.default_collate(samples)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_error_comes_out_of_a_worker_as_it_is(workers: int) -> None:
    plan = LoaderPlan(Damaged(), 2, num_workers=workers, collate_fn=same_shapes)
    loader = EpochLoader(plan, 0, World(), training=True)
    with pytest.raises(DataError, match="does not decode") as error:
        list(loader.epoch(0))
    assert str(error.value) == "data[4]: an image does not decode\n  do: pack again"
    with pytest.raises(DataError, match="differ in shape"):
        list(loader.epoch(0, skip=4))


class Dies(Careless):
    def __getitem__(self, index: int) -> dict[str, Any]:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"draws": np.zeros(2)}


def test_a_worker_that_dies_is_named() -> None:
    loader = EpochLoader(LoaderPlan(Dies(), 2, num_workers=1), 0, World(), training=True)
    with pytest.raises(DataError, match="worker process of a data loader has died") as error:
        list(loader.epoch(0))
    assert "lower num_workers" in str(error.value.remedy)


def test_skipped_batches_are_not_loaded() -> None:
    loaded: list[int] = []

    class Watched(Spots):
        def replay(self, index: int, epoch: int) -> dict[str, Any]:
            loaded.append(index)
            return super().replay(index, epoch)

    loader = EpochLoader(LoaderPlan(Watched(8), 2), 0, World(), training=True)
    assert len(list(loader.epoch(0, skip=3))) == 1
    assert loaded == [6, 7]
    assert list(loader.epoch(0, skip=4)) == []


def test_groups_of_batches() -> None:
    loader = EpochLoader(LoaderPlan(Spots(9), 2), 0, World(), training=True)
    sizes = [[len(batch["index"]) for batch in group] for group in loader.groups(0, 2)]
    assert sizes == [[2, 2], [2, 2], [1]]
    assert [[len(b["index"]) for b in group] for group in loader.groups(0, 2, skip=1)] == sizes[1:]


def test_evaluation_duplicates_nothing_and_drops_nothing() -> None:
    seen = []
    for rank in range(2):
        plan = LoaderPlan(Spots(7), 2, shuffle=True, drop_last=True)
        loader = EpochLoader(plan, 0, World(rank, 2), training=False)
        assert len(loader) == len(list(loader.epoch(0)))
        seen += [int(index) for batch in loader.epoch(0) for index in batch["index"]]
    assert sorted(seen) == list(range(7))


def test_a_recipe_with_a_distributed_sampler_beside_shuffle(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    given = recipe(
        context,
        dataset={"type": Spots, "count": 5},
        sampler={"type": DistributedSampler},
        shuffle=True,
        batch_size=2,
        num_workers=8,
        pin_memory=True,
    )
    plan = LoaderPlan.of(given, context)
    assert (plan.sampler, plan.shuffle, plan.batch_size, plan.num_workers) == (None, True, 2, 8)
    assert plan.dataset.seed == context.seed, "a data set that takes a seed gets the run's"


class Reversed:
    def __init__(self, data_source: Any, stop: int) -> None:
        self.indices = list(range(len(data_source)))[::-1][:stop]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def test_a_recipe_with_a_sampler_of_its_own(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    given = recipe(context, dataset={"type": Spots, "count": 5}, sampler={"type": Reversed, "stop": 3}, batch_size=3)
    loader = EpochLoader(LoaderPlan.of(given, context), 0, World(), training=True)
    assert [batch["index"].tolist() for batch in loader.epoch(0)] == [[4, 3, 2]]


def test_collate_by_name(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    named = Component("collate", "mine", "carkp_core.train.collate:default_collate")
    context.catalog._found["mine"] = [named]
    plan = LoaderPlan.of(recipe(context, dataset=Spots(3), collate_fn="mine"), context)
    assert plan.collate_fn is loaders.default_collate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is not a positive"),
        ({"batch_sampler": 3}, "'batch_sampler' has no meaning here"),
        ({"collate_fn": "no_such"}, "unknown type 'no_such'"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    context = make_context(tmp_path)
    with pytest.raises(ConfigError, match=message):
        LoaderPlan.of(recipe(context, dataset=Spots(3), **arguments), context)


def test_what_is_no_loader_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a DataLoader"):
        LoaderPlan.of([1, 2], make_context(tmp_path))


def test_a_ready_made_loader(tmp_path: Path) -> None:
    plan = LoaderPlan.of(spot_loader(6, 2, shuffle=True), make_context(tmp_path))
    assert (plan.batch_size, plan.shuffle, plan.sampler) == (2, True, None)
    by_hand = DataLoader(Spots(6), sampler=DistributedSampler(Spots(6), 1, 0, shuffle=True))
    assert LoaderPlan.of(by_hand, make_context(tmp_path)).shuffle


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_data_set(training: bool) -> None:
    with pytest.raises(DataError, match="too small"):
        EpochLoader(LoaderPlan(Spots(0), 2), 0, World(), training)


def test_fewer_samples_than_a_batch_that_may_not_be_smaller() -> None:
    with pytest.raises(DataError, match="too small"):
        EpochLoader(LoaderPlan(Spots(3), 4, drop_last=True), 0, World(), training=True)


class Recorded(Told):
    """Notes which thread asks for samples."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.threads.add(threading.current_thread().name)
        return super().__getitem__(index)


@pytest.mark.parametrize("training", [False, True])
def test_evaluation_without_workers_loads_ahead_in_a_thread(training: bool) -> None:
    dataset = Recorded()
    plan = LoaderPlan(dataset, 3)
    found = draws(EpochLoader(plan, 7, World(), training), 2)
    assert found.tolist() == [[index, 2] for index in range(10)]
    assert (dataset.threads == {"MainThread"}) == training


def test_a_data_set_on_global_generators_stays_in_its_thread() -> None:
    class Asked(Careless):
        def __getitem__(self, index: int) -> dict[str, Any]:
            assert threading.current_thread() is threading.main_thread()
            return super().__getitem__(index)

    assert len(draws(EpochLoader(LoaderPlan(Asked(), 3), 7, World(), training=False), 0)) == 10


def test_closing_ends_the_workers_at_once() -> None:
    loader = EpochLoader(LoaderPlan(Spots(12), 2, num_workers=2), 0, World(), training=True)
    next(loader.epoch(0))
    workers = loader._loader._iterator._workers  # type: ignore[union-attr]
    assert all(worker.is_alive() for worker in workers)
    loader.close()
    loader.close()
    assert not any(worker.is_alive() for worker in workers)
    assert len(list(loader.epoch(0))) == 6, "a closed loader can be used again"
    loader.close()
