"""A cascade: consecutive layers computed stripe by stripe; what passes between them is never on chip as a whole.

Before::

    layer 3   all rows of A -> all rows of B          B: 256 rows, on chip or through DDR
    layer 4   all rows of B -> all rows of C          C: 256 rows
    layer 5   all rows of C, B -> all rows of D

After, 16 rows of D at a time::

    step 0    layer 3: B 0..18    layer 4: C 0..17    layer 5: D 0..16      B: 20 slots of rows, C: 18
    step 1    layer 3: B 18..34   layer 4: C 17..33   layer 5: D 16..32     row r lies in slot r % slots
    ...

The last layer goes on by a stripe in each step; from there, back to the first, each layer computes the rows that its
readers need and it has not computed yet. So no row is computed twice, and a rolling buffer holds the rows from the
first one that some reader still needs (halo rows, a residual's delay) to the last one made. A layer that nothing in the
cascade reads goes on by its share of rows. What is needed after the cascade stays on chip as a whole, or is stored
stripe by stripe. Inputs in DDR pass through rolling buffers with room for the next step's rows, and are loaded once for
all their readers; parameters are loaded before the first stripe and stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from attrs import define, field, frozen

from carkp_bpu.compiler.group import Model
from carkp_bpu.compiler.rows import RowNeeds, row_needs

IntArray = npt.NDArray[np.int64]

#: Layers of the longest cascade that is looked at, and steps of the one with the lowest stripes.
LONGEST = 24
_MOST_STEPS = 256


@frozen(eq=False)
class Ring:
    """A tensor's way through a cascade: rows done (made or loaded) after each step, and slots for those still needed.

    The first row is ``start``. ``slots`` serve the readers inside; ``streaming_slots`` leave room to store or load
    beside the computation.
    """

    start: int
    done: IntArray = field(repr=False)
    slots: int
    streaming_slots: int


@frozen(eq=False)
class Shape:
    """Layers ``first`` to ``last``, ``stripe`` rows of the last one a step; rings by tensor as the layers name it."""

    first: int
    last: int
    stripe: int
    steps: int
    made: dict[str, Ring] = field(repr=False)
    taken: dict[str, Ring] = field(repr=False)


@define(eq=False)
class _Demand:
    """What readers inside ask of a tensor in each step: the rows up to ``ends``, from ``begins`` on."""

    ends: IntArray
    begins: IntArray


class Cascades:
    """The cascades of a model; remembers which rows its layers need."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._needs: dict[int, tuple[RowNeeds, ...]] = {}

    def stripes(self, last: int) -> list[int]:
        """Heights worth trying for cascades that end with a layer: its rows halved again and again."""
        height = self._model.layers[last].lowering.output.height
        powers = (1 << n for n in range(1, max(height - 1, 0).bit_length() + 1))
        found = dict.fromkeys(math.ceil(height / power) for power in powers)
        return [stripe for stripe in found if math.ceil(height / stripe) <= _MOST_STEPS]

    def ending(self, last: int, stripe: int) -> Iterator[Shape]:
        """The cascades of two layers or more that end with a layer, shortest first."""
        steps = math.ceil(self._model.layers[last].lowering.output.height / stripe)
        asked: dict[str, _Demand] = {}
        made: dict[str, Ring] = {}
        for index in range(last, max(-1, last - LONGEST), -1):
            layer = self._model.layers[index]
            if not self._joins(index, asked):
                return
            demand = asked.pop(layer.output, None)
            rows = layer.lowering.output.height
            if index == last:
                done = np.minimum((np.arange(steps) + 1) * stripe, rows)
            elif demand is None:
                done = -(-rows * (np.arange(steps) + 1) // steps)
            else:
                done = np.maximum.accumulate(demand.ends)
                # Rows that no reader needs are made at last: another part of the network, or a tap, may want them.
                done[-1] = rows
            made = {**made, layer.output: _made_ring(done, demand, rows)}
            self._ask(index, done, asked)
            if index < last:
                yield Shape(index, last, stripe, steps, made, {name: _taken_ring(d) for name, d in asked.items()})

    def needs(self, index: int) -> tuple[RowNeeds, ...]:
        """The rows that a layer needs of its inputs."""
        if index not in self._needs:
            self._needs[index] = row_needs(self._model.layers[index].lowering)
        return self._needs[index]

    def _joins(self, index: int, asked: dict[str, _Demand]) -> bool:
        """Whether a layer can be part of a cascade with those behind it that ask for ``asked``."""
        layer, maps = self._model.layers[index], self._model.maps
        if not layer.lowering.row_by_row:
            return False
        for name in asked:
            if self._model.root(name) != layer.output or name == layer.output:
                continue
            # Read under another shape: its rows would be other rows.
            return False
        return maps[layer.output].height > 0

    def _ask(self, index: int, done: IntArray, asked: dict[str, _Demand]) -> None:
        """Add what a layer asks of its inputs when it has done so many rows after each step."""
        before = np.concatenate(([0], done[:-1]))
        active = done > before
        for name, needs in zip(self._model.layers[index].inputs, self.needs(index), strict=True):
            height = self._model.maps[name].height
            ends = np.where(active, needs.ends[np.maximum(done, 1) - 1], 0)
            begins = np.where(active, needs.begins[np.minimum(before, len(needs.begins) - 1)], height)
            demand = asked.setdefault(name, _Demand(np.zeros_like(ends), np.full_like(begins, height)))
            demand.ends = np.maximum(demand.ends, np.maximum.accumulate(ends))
            demand.begins = np.minimum(demand.begins, np.minimum.accumulate(begins[::-1])[::-1])


def _made_ring(done: IntArray, demand: _Demand | None, rows: int) -> Ring:
    before = np.concatenate(([0], done[:-1]))
    slots = int((done - before).max())
    if demand is not None:
        slots = max(slots, int((done - np.minimum(demand.begins, done)).max()))
    # While the rows of a step are being stored, the next step's are made.
    two_steps = int((done - np.concatenate(([0], before[:-1]))).max())
    return Ring(0, done, min(rows, slots), min(rows, max(slots, two_steps)))


def _taken_ring(demand: _Demand) -> Ring:
    done = demand.ends
    begins = np.minimum(demand.begins, done)
    slots = max(1, int((done - begins).max()))
    ahead = np.concatenate((done[1:], done[-1:]))
    return Ring(int(demand.begins[0]), done, slots, max(slots, int((ahead - begins).max())))
