"""Offsets in a memory for buffers with live ranges: any two that live at once lie apart.

Time counts in layers. The peak of live bytes is a lower bound of the memory's height. Several orders, then two seeded
searches look for a plan no higher than allowed, and stop at the bound when asked for the lowest one: ``skyline`` fills
the memory from the bottom, then orders are varied.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from carkp_bpu.compiler.skyline import fill

#: Buffers begin at multiples of this.
ALIGNMENT = 16
_SEARCH_ROUNDS = 100
#: Steps of the skyline search for each round, and the heights that it tries, from the goal (0) to the best plan (1).
_VISITS = 20
_HEIGHTS = (0.0, 0.15, 0.3, 0.5, 0.75)


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

    Fixed orders come first, then the skyline search at the goal and at heights between goal and best plan. At last
    a buffer that touches the top of the best plan is moved further to the front of its order, or two are swapped, and
    what is no higher is kept. ``rounds`` bounds both searches.
    """
    layout = _Layout(buffers)
    goal = max(layout.bound, enough)
    best = order = None
    for tried in _fixed_orders(buffers):
        plan = layout.place(tried)
        if best is None or plan.height < best.height:
            best, order = plan, tried
        if plan.height <= goal:
            return plan
    assert best is not None
    assert order is not None
    filled = _filled(layout, best, goal, rounds * _VISITS, seed)
    if filled is not None:
        best, order = filled, sorted(range(len(buffers)), key=lambda i: (filled.offsets[buffers[i].name], i))
    chance = random.Random(seed)
    for _ in range(rounds if len(order) > 1 else 0):
        if best.height <= goal:
            break
        changed = _varied(order, layout.at_the_top(order, best), chance)
        plan = layout.place(changed)
        if plan.height <= best.height:
            best, order = plan, changed
    return best


def _filled(layout: _Layout, best: Allocation, goal: int, visits: int, seed: int) -> Allocation | None:
    """The lowest plan of the skyline search between goal and best plan, or None."""
    for part in _HEIGHTS:
        height = goal + int(part * (best.height - goal))
        offsets = fill(layout.spans, height, visits, seed) if height < best.height else None
        if offsets is not None:
            return layout.plan(offsets)
    return None


def refit(buffers: Sequence[Buffer], allocation: Allocation, changed: Buffer, capacity: int) -> Allocation | None:
    """The plan with one buffer's live range changed and only that buffer moved, or None when it has no room."""
    others = [(allocation.offsets[b.name], b) for b in buffers if b.name != changed.name]
    at = _lowest_gap([(begin, begin + b.size) for begin, b in others if b.lives_with(changed)], changed.size)
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


class _Layout:
    """Buffers by number, each with those that live at some time with it."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._buffers = tuple(buffers)
        self.bound = live_bound(buffers)
        self.spans = [(buffer.first, buffer.last, buffer.size) for buffer in buffers]
        self._beside = [
            [j for j, (first, last, _) in enumerate(self.spans) if i != j and first <= one[1] and one[0] <= last]
            for i, one in enumerate(self.spans)
        ]

    def place(self, order: Sequence[int]) -> Allocation:
        """Each buffer in turn at the lowest offset that those before it leave."""
        offsets = [-1] * len(self._buffers)
        for number in order:
            taken = [(offsets[j], offsets[j] + self.spans[j][2]) for j in self._beside[number] if offsets[j] >= 0]
            offsets[number] = _lowest_gap(taken, self.spans[number][2])
        return self.plan(offsets)

    def plan(self, offsets: Sequence[int]) -> Allocation:
        """Offsets by number as a plan."""
        height = max((at + span[2] for at, span in zip(offsets, self.spans, strict=True)), default=0)
        named = {buffer.name: at for at, buffer in zip(offsets, self._buffers, strict=True)}
        return Allocation(named, height, self.bound)

    def at_the_top(self, order: Sequence[int], plan: Allocation) -> list[int]:
        """Places in an order, but the first, of buffers that touch the plan's top."""
        ends = [plan.offsets[self._buffers[number].name] + self.spans[number][2] for number in order]
        return [place for place, end in enumerate(ends) if place and end == plan.height]


def _fixed_orders(buffers: Sequence[Buffer]) -> Iterator[list[int]]:
    """Orders worth trying: by size, by area, by time, by duration, and by how much else lives meanwhile."""
    live = live_bytes(buffers)

    def crowd(buffer: Buffer) -> int:
        return max(live[time] for time in range(buffer.first, buffer.last + 1))

    keys: tuple[Callable[[Buffer], tuple[Any, ...]], ...] = (
        lambda b: (-b.size, b.first, b.name),
        lambda b: (-b.size * (b.last - b.first + 1), b.first, b.name),
        lambda b: (b.first, -b.size, b.name),
        lambda b: (b.first - b.last, -b.size, b.name),
        lambda b: (-crowd(b), b.first - b.last, -b.size, b.name),
    )
    for key in keys:
        yield sorted(range(len(buffers)), key=lambda number, key=key: key(buffers[number]))  # type: ignore[misc]


def _varied(order: Sequence[int], top: Sequence[int], chance: random.Random) -> list[int]:
    """A neighbour of an order: a buffer of the plan's top moved to the front, or two buffers swapped."""
    changed = list(order)
    if chance.random() < 0.5:
        source = chance.choice(top) if top else chance.randrange(len(order))
        changed.insert(chance.randrange(source + 1), changed.pop(source))
    else:
        i, j = chance.randrange(len(order)), chance.randrange(len(order))
        changed[i], changed[j] = changed[j], changed[i]
    return changed


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    """The lowest offset of ``size`` free bytes between ranges, which may overlap."""
    at = 0
    for begin, end in sorted(taken):
        if begin - at >= size:
            break
        at = max(at, end)
    return at
