"""Cuts between segments, stripe heights and resident tensors by dynamic programming, for the least time.

Before: layers. After: segments, as::

    layers 0..4    cascade, 8 rows of 128 a step      relu4 stays on chip
    layer  5       3 tiles                            conv5 goes through DDR
    layers 6..9    cascade, 16 rows of 64 a step

A state is a cut between two layers and the set of tensors that are on chip as a whole there. From each state every run
of layers that can be a segment leads to further states: one for each choice of which of the tensors made in it stay.
What lives at the cut and the segment's own buffers must fit. The time of a state is that of the fastest way to it. Of
the states at a cut the best few are kept, the empty one always; in that comparison a tensor that is not on chip is
charged its next load.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from attrs import frozen

from carkp_bpu.compiler.allocate import allocate, verify
from carkp_bpu.compiler.group import Model
from carkp_bpu.compiler.placement import Lives, Placement, Segment, Target, wanted_buffers
from carkp_bpu.compiler.price import transfer_price
from carkp_bpu.compiler.reside import Menus, too_small
from carkp_bpu.compiler.segments import Choice, Names, Runs

#: States kept at a cut, and tensors made in one segment whose every subset is looked at.
_STATES = 12
_SUBSETS = 3
#: Shares of the SRAM that are planned for: what a plan leaves is room for offsets and for parameters loaded ahead.
_SHARES = (1.0, 0.93, 0.85, 0.7)


@frozen(eq=False)
class _State:
    """The fastest way to a cut with some tensors on chip."""

    cycles: float
    resident: Names
    before: _State | None
    choice: Choice | None


def search(model: Model, target: Target, menus: Menus) -> Iterator[Placement]:
    """The plan of least estimated time for each of several shares of the SRAM, as far as offsets are found for it.

    Raises
    ------
    BackendError
        When a layer's smallest tile is larger than the SRAM.
    """
    lives = Lives(model, target.march)
    runs = Runs(model, target, lives, menus, target.sram_bytes)
    seen = set()
    for share in _SHARES:
        segments, resident = _Search(model, target, lives, runs, int(target.sram_bytes * share)).best()
        cut = tuple(segment.cut for segment in segments), resident
        buffers = wanted_buffers(model, lives, segments, resident)
        sram = None if cut in seen else allocate(buffers, target.sram_bytes)
        seen.add(cut)
        if sram is not None:
            verify(buffers, sram, target.sram_bytes)
            yield Placement(segments, resident, tuple(buffers), sram)


class _Search:
    """One run of the dynamic programme for some bytes of SRAM."""

    def __init__(self, model: Model, target: Target, lives: Lives, runs: Runs, capacity: int) -> None:
        self._model, self._target, self._lives, self._runs = model, target, lives, runs
        self._capacity = capacity
        self._sizes = {name: lives.size(name) for name in lives.candidates}
        march = target.march
        self._loads = {
            name: transfer_price(model.maps[name].dense_bytes, 1, march).transfer for name in lives.candidates
        }
        self._reads: dict[tuple[int, int], Names] = {}
        self._by_maker = {lives.made[name]: name for name in lives.candidates}

    def best(self) -> tuple[tuple[Segment, ...], Names]:
        """Segments in order, and all tensors that stay on chip."""
        cuts: list[list[_State]] = [[_State(0.0, frozenset(), None, None)]]
        for end in range(1, len(self._model.layers) + 1):
            found: dict[Names, _State] = {}
            for first in self._runs.firsts[end - 1]:
                for state in cuts[first]:
                    self._extend(state, first, end - 1, found)
            if frozenset() not in found:
                raise too_small(self._model.layers[end - 1], self._target)
            cuts.append(self._kept(found, end))
        at = cuts[-1][0]
        segments: list[Segment] = []
        resident: set[str] = set()
        while at.before is not None and at.choice is not None:
            resident |= at.resident
            segments.insert(0, at.choice.build())
            at = at.before
        return tuple(segments), frozenset(resident)

    def _extend(self, state: _State, first: int, last: int, found: dict[Names, _State]) -> None:
        """All ways on from a state by the segment of some layers."""
        live = sum(self._sizes[name] for name in state.resident)
        if live > self._capacity:
            return
        stays = frozenset(name for name in state.resident if self._lives.last[name] > last)
        for kept in self._keeping(first, last):
            resident = stays | kept
            room = self._capacity - live - sum(self._sizes[name] for name in kept)
            choice = self._choose(first, last, state.resident, kept, room)
            if choice is None:
                continue
            cycles = state.cycles + choice.cycles
            if resident not in found or cycles < found[resident].cycles:
                found[resident] = _State(cycles, resident, state, choice)

    def _choose(self, first: int, last: int, before: Names, kept: Names, budget: int) -> Choice | None:
        """The fastest segment of some layers that fits."""
        if budget < 0:
            return None
        if first == last:
            return self._runs.tiled(first, before | kept, budget, at_any_cost=not before and not kept)
        resident = (before & self._touched(first, last)) | kept
        fitting = (c for c in self._runs.cascades(first, last, resident) if c.sram_bytes <= budget)
        return next(fitting, None)

    def _touched(self, first: int, last: int) -> Names:
        """The storages that some layers read."""
        if (first, last) not in self._reads:
            layers = self._model.layers[first : last + 1]
            self._reads[first, last] = frozenset(self._model.root(name) for layer in layers for name in layer.inputs)
        return self._reads[first, last]

    def _keeping(self, first: int, last: int) -> Iterator[Names]:
        """Choices of tensors made in a segment and needed after it that stay on chip."""
        made = [self._by_maker[index] for index in range(first, last + 1) if index in self._by_maker]
        leaving = [name for name in made if self._lives.last[name] > last]
        if len(leaving) <= _SUBSETS:
            for count in range(len(leaving) + 1):
                yield from map(frozenset, itertools.combinations(leaving, count))
            return
        leaving.sort(key=lambda name: (self._sizes[name], name))
        for count in range(len(leaving) + 1):
            yield frozenset(leaving[:count])

    def _kept(self, found: dict[Names, _State], cut: int) -> list[_State]:
        """The best states at a cut, best first."""
        crossing = [n for n in self._lives.candidates if self._lives.made[n] < cut <= self._lives.last[n]]
        due = sum(self._loads[name] for name in crossing)

        def cost(state: _State) -> tuple[float, list[str]]:
            return state.cycles + due - sum(self._loads[name] for name in state.resident), sorted(state.resident)

        ordered = sorted(found.values(), key=cost)
        kept = ordered[:_STATES]
        if not any(not state.resident for state in kept):
            kept.append(found[frozenset()])
        return kept
