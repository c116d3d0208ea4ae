"""Which samples an epoch takes, in which order: a function of seed and epoch alone.

A sampler yields keys ``(epoch, index)`` rather than indices, so that workers which live on over epochs know which
epoch they are asked for, and a resumed epoch can skip batches without loading them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
from attrs import frozen
from torch.utils.data import Sampler

from carkp_core.train.distributed import World
from carkp_core.train.seeding import seeded

Key = tuple[int, int]

#: Keeps the order's random stream apart from the samples' streams ``(seed, epoch, index)``.
_ORDER_STREAM = 0x0D0E


def epoch_order(count: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the order of ``count`` samples in an epoch, int64 ``[count]``."""
    if not shuffle:
        return np.arange(count, dtype=np.int64)
    return np.random.default_rng((seed, epoch, 0, _ORDER_STREAM)).permutation(count).astype(np.int64)


def shard(order: Sequence[int] | np.ndarray[Any, Any], world: World, even: bool) -> list[int]:
    """Return this process's share of an order.

    Parameters
    ----------
    even:
        Every process gets equally many, the first samples standing in for missing ones (training: gradients are
        exchanged step by step). Otherwise nothing is duplicated (evaluation).
    """
    indices = [int(index) for index in order]
    if even and indices:
        missing = -len(indices) % world.size
        indices += (indices * (missing // len(indices) + 1))[:missing]
    return indices[world.rank :: world.size]


@frozen(eq=False)
class Order:
    """The rule behind an order: shuffled or not, or a config's own sampler, and how it is shared."""

    count: int
    seed: int
    shuffle: bool
    world: World
    even: bool
    sampler: Iterable[int] | None = None

    def indices(self, epoch: int) -> list[int]:
        """Return the samples of an epoch for this process."""
        if self.sampler is None:
            return shard(epoch_order(self.count, self.seed, epoch, self.shuffle), self.world, self.even)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
        with seeded(self.seed, epoch, _ORDER_STREAM):
            return shard(list(self.sampler), self.world, self.even)

    def __len__(self) -> int:
        whole = len(self.sampler) if isinstance(self.sampler, Sized) else self.count
        rounded_up = -(-whole // self.world.size)
        return rounded_up if self.even else len(range(self.world.rank, whole, self.world.size))


class EpochBatches(Sampler[list[Key]]):
    """Batches of keys of one epoch; ``start(epoch, skip)`` chooses which, before each iteration."""

    def __init__(self, order: Order, batch_size: int, drop_last: bool) -> None:
        self.order = order
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.start(0)

    def start(self, epoch: int, skip: int = 0) -> None:
        """Iterate over ``epoch`` next, without its first ``skip`` batches."""
        self._epoch, self._skip = epoch, skip

    def __iter__(self) -> Iterator[list[Key]]:
        indices = self.order.indices(self._epoch)
        for batch in range(self._skip, len(self)):
            first = batch * self.batch_size
            yield [(self._epoch, index) for index in indices[first : first + self.batch_size]]

    def __len__(self) -> int:
        """The number of batches in a whole epoch."""
        count = len(self.order)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
