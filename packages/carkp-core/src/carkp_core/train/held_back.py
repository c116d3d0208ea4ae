"""Part of a loader's samples is held back: what is chosen or measured on it was not fitted to it."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from carkp_core.errors import DataError
from carkp_core.train.distributed import World
from carkp_core.train.loaders import LoaderPlan
from carkp_core.train.samplers import Order

#: No more than this share of the samples is held back, however few there are.
GREATEST_SHARE = 0.25
#: Of fewer samples none is held back: one image would choose for all, and the observers would miss it.
LEAST_SAMPLES = 8


class Listed:
    """A sampler of fixed indices."""

    def __init__(self, indices: list[int]) -> None:
        self._indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


class Without:
    """A sampler: another order, epoch by epoch, without some of its indices."""

    def __init__(self, order: Order, left_out: frozenset[int]) -> None:
        self._order, self._left_out = order, left_out
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is iterated over next."""
        self._indices = [index for index in self._order.indices(epoch) if index not in self._left_out]

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def split(plan: LoaderPlan, batches: int, seed: int) -> tuple[LoaderPlan, LoaderPlan | None]:
    """Hold back the samples of an epoch's first batches.

    At most a quarter of the samples is held back, none of fewer than ``LEAST_SAMPLES``, and with ``drop_last`` a whole
    batch stays.

    Returns
    -------
    The plan of what stays, the same samples in every epoch, and of what is held back: None when nothing can be.

    Raises
    ------
    DataError
        A config's own sampler brings nothing.
    """
    if not hasattr(plan.dataset, "__len__"):
        return plan, None  # the loader says what is wrong
    order = Order(len(plan.dataset), seed, plan.shuffle, World(), even=True, sampler=plan.sampler)
    first = order.indices(0)
    if not first and len(plan.dataset):
        raise DataError("the sampler brings no samples", seen=type(plan.sampler).__name__)
    distinct = list(dict.fromkeys(first))
    staying = plan.batch_size if plan.drop_last else 1
    count = min(batches * plan.batch_size, int(GREATEST_SHARE * len(distinct)), len(distinct) - staying)
    if count < 1 or len(distinct) < LEAST_SAMPLES:
        return plan, None
    held = distinct[:count]
    rest = attrs.evolve(plan, shuffle=False, sampler=Without(order, frozenset(held)))
    return rest, attrs.evolve(plan, shuffle=False, sampler=Listed(held), drop_last=False)
