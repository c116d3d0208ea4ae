"""Offsets in a memory for buffers with live ranges: any two that live at once lie apart.

Time counts in layers. The peak of live bytes is a lower bound of the memory's height; several orders, then a
seeded search, look for a plan no higher than allowed, and stop at the bound when asked for the lowest one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from attrs import field, frozen

#: Buffers begin at multiples of this.
ALIGNMENT = 16
_SEARCH_ROUNDS = 100


def _rounded(size: int) -> int:
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


@frozen
class Buffer:
    """A range of memory wanted from layer ``first`` to layer ``last``, both included."""

    name: str
    size: int = field(converter=_rounded)
    first: int
    last: int

    def lives_with(self, other: Buffer) -> bool:
        """Whether both are wanted at some time."""
        return self.first <= other.last and other.first <= self.last


@frozen
class Allocation:
    """Offsets by buffer name, the memory's height, and the bound no plan can go below."""

    offsets: Mapping[str, int]
    height: int
    bound: int

    @property
    def overhead(self) -> float:
        """Height over bound, less one."""
        return self.height / self.bound - 1 if self.bound else 0.0


def live_bound(buffers: Sequence[Buffer]) -> int:
    """The largest sum of sizes that live at one time."""
    return max(live_bytes(buffers).values(), default=0)


def live_bytes(buffers: Sequence[Buffer]) -> dict[int, int]:
    """Live bytes at each time at which something begins or ends, and between."""
    total: dict[int, int] = {}
    for buffer in buffers:
        for time in range(buffer.first, buffer.last + 1):
            total[time] = total.get(time, 0) + buffer.size
    return total


def allocate(
    buffers: Sequence[Buffer], capacity: int, seed: int = 0, rounds: int = _SEARCH_ROUNDS
) -> Allocation | None:
    """A plan of at most ``capacity`` bytes, or None when the search finds none.

    The first order that fits wins; equal input gives equal plans.
    """
    bound = live_bound(buffers)
    if bound > capacity:
        return None
    best = lowest(buffers, seed, rounds, enough=capacity)
    return best if best.height <= capacity else None


def lowest(buffers: Sequence[Buffer], seed: int = 0, rounds: int = _SEARCH_ROUNDS, enough: int = 0) -> Allocation:
    """The lowest plan that the search finds; it stops at the bound, or at a height that is ``enough``.

    Four fixed orders come first. The search then moves a buffer that touches the top of the best plan further to the
    front, or swaps two, and keeps what is no higher.
    """
    goal = max(live_bound(buffers), enough)
    orders = list(_fixed_orders(buffers))
    plans = []
    for order in orders:
        plans.append(_place(order, live_bound(buffers)))
        if plans[-1].height <= goal:
            return plans[-1]
    start = min(range(len(plans)), key=lambda index: plans[index].height)
    best, order, chance = plans[start], orders[start], random.Random(seed)
    for _ in range(rounds if len(order) > 1 else 0):
        changed = _varied(order, best, chance)
        plan = _place(changed, best.bound)
        if plan.height <= best.height:
            best, order = plan, changed
        if best.height <= goal:
            break
    return best


def refit(buffers: Sequence[Buffer], allocation: Allocation, changed: Buffer, capacity: int) -> Allocation | None:
    """The plan with one buffer's live range changed and only that buffer moved, or None when it has no room."""
    others = [(allocation.offsets[b.name], b) for b in buffers if b.name != changed.name]
    at = _lowest_gap(others, changed)
    if at + changed.size > capacity:
        return None
    offsets = {**allocation.offsets, changed.name: at}
    bound = live_bound([*(b for _, b in others), changed])
    return Allocation(offsets, max(allocation.height, at + changed.size), bound)


def verify(buffers: Sequence[Buffer], allocation: Allocation, capacity: int) -> None:
    """Check a plan by its definition alone, apart from how it was made. Raises ValueError naming two buffers."""
    for index, one in enumerate(buffers):
        at = allocation.offsets[one.name]
        if at < 0 or at % ALIGNMENT or at + one.size > capacity:
            raise ValueError(f"{one.name} at {at}..{at + one.size} leaves a memory of {capacity} bytes")
        for other in buffers[index + 1 :]:
            begin = allocation.offsets[other.name]
            if one.lives_with(other) and at < begin + other.size and begin < at + one.size:
                raise ValueError(f"{one.name} and {other.name} overlap at {max(at, begin)}")


def _fixed_orders(buffers: Sequence[Buffer]) -> Iterator[list[Buffer]]:
    """Orders worth trying: by size, by area, by time, by duration."""
    yield sorted(buffers, key=lambda b: (-b.size, b.first, b.name))
    yield sorted(buffers, key=lambda b: (-b.size * (b.last - b.first + 1), b.first, b.name))
    yield sorted(buffers, key=lambda b: (b.first, -b.size, b.name))
    yield sorted(buffers, key=lambda b: (b.first - b.last, -b.size, b.name))


def _varied(order: list[Buffer], plan: Allocation, chance: random.Random) -> list[Buffer]:
    """A neighbour of an order: a buffer at the plan's top moved to the front, or two buffers swapped."""
    changed = list(order)
    if chance.random() < 0.5:
        top = [i for i, b in enumerate(order) if i and plan.offsets[b.name] + b.size == plan.height]
        source = chance.choice(top) if top else chance.randrange(len(order))
        changed.insert(chance.randrange(source + 1), changed.pop(source))
    else:
        i, j = chance.randrange(len(order)), chance.randrange(len(order))
        changed[i], changed[j] = changed[j], changed[i]
    return changed


def _place(order: Sequence[Buffer], bound: int) -> Allocation:
    """Each buffer at the lowest offset that its neighbours in time leave."""
    placed: list[tuple[int, Buffer]] = []
    height = 0
    for buffer in order:
        at = _lowest_gap(placed, buffer)
        placed.append((at, buffer))
        height = max(height, at + buffer.size)
    return Allocation({buffer.name: at for at, buffer in placed}, height, bound)


def _lowest_gap(placed: Sequence[tuple[int, Buffer]], buffer: Buffer) -> int:
    at = 0
    for begin, end in sorted((begin, begin + other.size) for begin, other in placed if other.lives_with(buffer)):
        if begin - at >= buffer.size:
            break
        at = max(at, end)
    return at
