"""Holding samples back: which, how many, and that the rest keeps its order."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import WeightedRandomSampler
from train_toys import Spots

from carkp_core.train.distributed import World
from carkp_core.train.held_back import split
from carkp_core.train.loaders import EpochLoader, LoaderPlan


def indices(plan: LoaderPlan, epoch: int = 0) -> list[int]:
    """Samples of an epoch as a loader brings them."""
    loader = EpochLoader(plan, seed=1, world=World(), training=True)
    return [int(index) for batch in loader.epoch(epoch) for index in batch["index"]]


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_same_samples_stay_away_in_every_epoch(shuffle: bool) -> None:
    rest, held = split(LoaderPlan(Spots(20), batch_size=2, shuffle=shuffle), 2, seed=1)
    assert held is not None
    apart = indices(held)
    assert len(apart) == 4
    for epoch in range(3):
        assert sorted(indices(rest, epoch) + apart) == list(range(20))
    if shuffle:
        assert indices(rest, 0) != indices(rest, 1)
        assert apart != [0, 1, 2, 3]
    else:
        assert indices(rest) == list(range(4, 20))


@pytest.mark.parametrize(
    ("count", "batch", "drop_last", "held_count"),
    [
        (400, 4, False, 16),
        (12, 4, False, 3),
        (9, 8, True, 1),
        (8, 8, True, 0),
        (8, 2, False, 2),
        (7, 2, False, 0),
        (0, 2, False, 0),
    ],
)
def test_at_most_a_quarter_is_held_back_and_a_batch_stays(
    count: int, batch: int, drop_last: bool, held_count: int
) -> None:
    rest, held = split(LoaderPlan(Spots(count), batch_size=batch, drop_last=drop_last), 4, seed=0)
    assert (0 if held is None else len(held.sampler)) == held_count
    if count:
        assert indices(rest)


def test_nothing_is_held_back_when_nothing_is_asked_for() -> None:
    plan = LoaderPlan(Spots(20), batch_size=2)
    assert split(plan, 0, seed=0) == (plan, None)


def test_a_samplers_own_choice_is_kept() -> None:
    torch.manual_seed(0)
    weights = [1.0] * 10 + [0.0] * 10
    plan = LoaderPlan(Spots(20), batch_size=2, sampler=WeightedRandomSampler(weights, 40))
    rest, held = split(plan, 1, seed=0)
    assert held is not None
    apart, stayed = set(indices(held)), set(indices(rest))
    assert len(apart) == 2
    assert stayed
    assert max(apart | stayed) < 10
    assert not apart & stayed
