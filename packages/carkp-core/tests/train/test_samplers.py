from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.train.distributed import World
from carkp_core.train.samplers import EpochBatches, Order, epoch_order, shard


def test_an_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_order(50, seed=1, epoch=2, shuffle=True)
    random.seed(99)
    assert (first == epoch_order(50, 1, 2, True)).all()
    assert sorted(first) == list(range(50))
    assert (first != epoch_order(50, 1, 3, True)).any()
    assert (first != epoch_order(50, 2, 2, True)).any()
    assert list(epoch_order(4, 1, 2, shuffle=False)) == [0, 1, 2, 3]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 5))
def test_shares_cover_everything(count: int, size: int) -> None:
    worlds = [World(rank, size) for rank in range(size)]
    apart = [shard(range(count), world, even=False) for world in worlds]
    assert sorted(index for share in apart for index in share) == list(range(count))
    even = [shard(range(count), world, even=True) for world in worlds]
    assert len({len(share) for share in even}) == 1
    assert {index for share in even for index in share} == set(range(count))
    for world, exact, same in zip(worlds, apart, even, strict=True):
        assert len(exact) == len(Order(count, 0, False, world, even=False))
        assert len(same) == len(Order(count, 0, False, world, even=True))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 30), batch=st.integers(1, 7), drop=st.booleans(), data=st.data())
def test_skipping_batches_changes_nothing_else(count: int, batch: int, drop: bool, data: st.DataObject) -> None:
    batches = EpochBatches(Order(count, 5, True, World(), even=True), batch, drop)
    batches.start(3)
    whole = list(batches)
    assert len(whole) == len(batches)
    skip = data.draw(st.integers(0, len(whole)))
    batches.start(3, skip)
    assert list(batches) == whole[skip:]
    assert all(epoch == 3 for keys in whole for epoch, _ in keys)


class Odd:
    """A config's own sampler that uses the global generator, as third parties' do."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(random.sample([1, 3, 5, 7], 4))

    def __len__(self) -> int:
        return 4


def test_a_configs_own_sampler_is_seeded_and_told_the_epoch() -> None:
    sampler = Odd()
    order = Order(8, 0, False, World(), even=True, sampler=sampler)
    before = random.getstate()
    first = order.indices(0)
    assert random.getstate() == before
    assert order.indices(0) == first
    assert sorted(order.indices(1)) == [1, 3, 5, 7]
    assert sampler.epochs == [0, 0, 1]
    assert len(order) == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_a_configs_own_sampler_is_shared(rank: int) -> None:
    order = Order(8, 0, False, World(rank, 2), even=False, sampler=[4, 5, 6])
    assert order.indices(0) == [[4, 6], [5]][rank]
    assert len(order) == [2, 1][rank]
