"""A search for a plan of at most a given height that fills memory from the bottom, like water.

Time is cut into sections in which the same buffers live. The search keeps how high each section is filled. A valley is
a stretch of sections lower than both neighbours: whatever fills it has a buffer in its left corner and one in its
right corner, or leaves the corner empty up to the next step of the skyline. The search takes the corner with the
fewest candidates and tries each. A branch ends when some section cannot take what still wants to live in it: where the
height leaves no slack hardly a branch survives, so a plan at the bound is often found, or soon given up.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator, Sequence

from attrs import define, frozen

#: Times that the search begins anew, each time with other preferences among equals.
_ATTEMPTS = 8


@frozen
class Item:
    """A buffer as the search sees it: sections ``first`` to ``last``, both included, and its size."""

    index: int
    first: int
    last: int
    size: int


@frozen
class Corner:
    """A corner of the valley from section ``first`` to ``end`` (exclusive), filled to ``level``, and what fits it."""

    first: int
    end: int
    level: int
    #: -1 at the left end, 1 at the right end.
    side: int
    candidates: tuple[Item, ...]


def fill(spans: Sequence[tuple[int, int, int]], height: int, visits: int, seed: int = 0) -> list[int] | None:
    """Offsets of a plan of at most ``height``, or None when the search ends without one.

    Parameters
    ----------
    spans:
        First time, last time (included) and size of each buffer.
    visits:
        Steps of the search at most.
    """
    items, sections = _in_sections(spans)
    chance = random.Random(seed)
    for attempt in range(_ATTEMPTS):
        weights = [chance.random() if attempt else 0.0 for _ in items]
        found = _Search(items, sections, height, weights).run(max(1, visits // _ATTEMPTS))
        if found is not None:
            return found
    return None


def _in_sections(spans: Sequence[tuple[int, int, int]]) -> tuple[list[Item], int]:
    edges = sorted({time for first, last, _ in spans for time in (first, last + 1)})
    items = [
        Item(index, bisect.bisect_left(edges, first), bisect.bisect_left(edges, last + 1) - 1, size)
        for index, (first, last, size) in enumerate(spans)
    ]
    return items, max(0, len(edges) - 1)


@define
class _Move:
    """What a step did, to be undone: sections and what they were filled to; the item laid there, if any."""

    first: int
    filled: list[int]
    item: Item | None


class _Search:
    def __init__(self, items: Sequence[Item], sections: int, height: int, weights: Sequence[float]) -> None:
        self._height, self._weights = height, weights
        self._filled = [0] * sections
        self._wanted = [0] * sections
        #: Items not yet laid by the section that they begin in, and by the one they end in.
        self._starting: list[list[Item]] = [[] for _ in range(sections)]
        self._ending: list[list[Item]] = [[] for _ in range(sections)]
        for item in items:
            self._starting[item.first].append(item)
            self._ending[item.last].append(item)
            for section in range(item.first, item.last + 1):
                self._wanted[section] += item.size
        self._left = len(items)
        self._offsets = [-1] * len(items)

    def run(self, visits: int) -> list[int] | None:
        """Depth first, at most so many steps."""
        if max(self._wanted, default=0) > self._height:
            return None
        done: list[_Move] = []
        open_: list[Iterator[_Move]] = []
        while self._left:
            if len(open_) == len(done):
                open_.append(self._moves(self._corner()))
            move = next(open_[-1], None)
            if move is None:
                open_.pop()
                if not done:
                    return None
                self._undo(done.pop())
                continue
            visits -= 1
            if visits < 0:
                return None
            done.append(move)
        return self._offsets

    def _corner(self) -> Corner:
        """The corner with the fewest candidates."""
        best: Corner | None = None
        first, count = 0, len(self._filled)
        while first < count:
            end, level = first + 1, self._filled[first]
            while end < count and self._wanted[end] and self._wanted[first] and self._filled[end] == level:
                end += 1
            if self._wanted[first] and self._wall(first - 1) > level < self._wall(end):
                left = tuple(item for item in self._starting[first] if item.last < end)
                right = tuple(item for item in self._ending[end - 1] if item.first >= first)
                side, found = (-1, left) if len(left) <= len(right) else (1, right)
                if best is None or len(found) < len(best.candidates):
                    best = Corner(first, end, level, side, found)
            first = end
        assert best is not None, "the lowest section that wants something lies in a valley"
        return best

    def _wall(self, section: int) -> int:
        """How high a neighbour stands; beyond the height where it wants nothing more, or is none."""
        if 0 <= section < len(self._filled) and self._wanted[section]:
            return self._filled[section]
        return self._height + 1

    def _moves(self, corner: Corner) -> Iterator[_Move]:
        """Each step from a corner that leaves every section room, done when it is yielded."""
        for item in sorted(corner.candidates, key=lambda item: self._preference(item, corner)):
            if all(
                corner.level + self._wanted[section] <= self._height for section in range(item.first, item.last + 1)
            ):
                yield self._lay(item, corner.level)
        first, end, step = self._gap(corner)
        if all(self._wanted[section] + step <= self._height for section in range(first, end)):
            yield self._raise(first, end, step)

    def _preference(self, item: Item, corner: Corner) -> tuple[float, ...]:
        """What leaves no new step in the skyline comes first, then what lives long, then what is large."""
        top, whole = corner.level + item.size, item.last - item.first + 1 == corner.end - corner.first
        near = self._wall(corner.first - 1) if corner.side < 0 else self._wall(corner.end)
        far = self._wall(corner.end) if corner.side < 0 else self._wall(corner.first - 1)
        flush = (top == near) + whole + (whole and top == far)
        return -flush, self._weights[item.index], item.first - item.last, -item.size, item.index

    def _gap(self, corner: Corner) -> tuple[int, int, int]:
        """Sections from the corner up to where something else could stand, and the step to leave them empty to."""
        inside = [
            item
            for section in range(corner.first, corner.end)
            for item in self._starting[section]
            if item.last < corner.end
        ]
        walls = self._wall(corner.first - 1), self._wall(corner.end)
        if corner.side < 0:
            others = [item for item in inside if item.first > corner.first]
            end = min((item.first for item in others), default=corner.end)
            first, near, far = corner.first, *walls
        else:
            others = [item for item in inside if item.last < corner.end - 1]
            first = max((item.last + 1 for item in others), default=corner.first)
            end, far, near = corner.end, *walls
        beside = corner.level + min(item.size for item in others) if others else far
        return first, end, min(near, beside)

    def _lay(self, item: Item, level: int) -> _Move:
        for section in range(item.first, item.last + 1):
            self._filled[section] = level + item.size
            self._wanted[section] -= item.size
        self._starting[item.first].remove(item)
        self._ending[item.last].remove(item)
        self._offsets[item.index] = level
        self._left -= 1
        return _Move(item.first, [level] * (item.last - item.first + 1), item)

    def _raise(self, first: int, end: int, level: int) -> _Move:
        before = self._filled[first:end]
        self._filled[first:end] = [level] * (end - first)
        return _Move(first, before, None)

    def _undo(self, move: _Move) -> None:
        self._filled[move.first : move.first + len(move.filled)] = move.filled
        item = move.item
        if item is None:
            return
        for section in range(item.first, item.last + 1):
            self._wanted[section] += item.size
        self._starting[item.first].append(item)
        self._ending[item.last].append(item)
        self._left += 1
