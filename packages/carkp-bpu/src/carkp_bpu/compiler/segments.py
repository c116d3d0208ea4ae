"""The choices for a run of layers: as one cascade of some stripe height, or as one layer in tiles; with their prices.

Before: layers i to j, and which of the tensors that enter or leave stay on chip. After: the choices, fastest first,
each with the SRAM that it needs beside those tensors. Of two choices the one both slower and larger is dropped.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import field, frozen

from carkp_bpu.compiler.cascade import Cascades, Shape
from carkp_bpu.compiler.group import Model
from carkp_bpu.compiler.maps import MapBuffer, Region
from carkp_bpu.compiler.placement import Cascade, Lives, Segment, Target, Tiled, row_buffer
from carkp_bpu.compiler.price import Price, compute_price, parameter_price, transfer_price
from carkp_bpu.compiler.reside import Menus
from carkp_bpu.compiler.tile import Streams

Names = frozenset[str]


@frozen(eq=False)
class Choice:
    """A segment, its time in cycles, and its own bytes of SRAM."""

    cycles: float
    sram_bytes: int
    segment: Segment


@frozen(eq=False)
class _Draft:
    """A cascade before it is known which tensors at its border stay on chip."""

    shape: Shape
    computing: Price = field(repr=False)
    #: Bytes of SRAM for parameters and for what stays inside.
    inner_bytes: int


class Runs:
    """Every run of layers of a model that can be a segment."""

    def __init__(self, model: Model, target: Target, lives: Lives, menus: Menus, capacity: int) -> None:
        self._model, self._target, self._lives, self._menus = model, target, lives, menus
        self._cascades = Cascades(model)
        self._drafts: dict[tuple[int, int], list[_Draft]] = {}
        self._known: dict[tuple[int, int, Names], list[Choice]] = {}
        self._prices: dict[tuple[int, int], Price] = {}
        self._parameter_bytes = [
            sum(layer.lowering.parameter_sizes((0, layer.lowering.output.channels))) for layer in model.layers
        ]
        for last in range(len(model.layers)):
            self._draft(last, capacity)
        #: First layers of the runs that end with each layer, the layer itself included.
        self.firsts: list[list[int]] = [
            [last, *sorted({first for first, end in self._drafts if end == last}, reverse=True)]
            for last in range(len(model.layers))
        ]

    def tiled(self, index: int, resident: Names, budget: int, at_any_cost: bool) -> Choice | None:
        """A layer by itself, given the resident tensors among its inputs and its output."""
        layer = self._model.layers[index]
        inputs = tuple(self._model.root(name) not in resident for name in layer.inputs)
        menu = self._menus.of(index, Streams(inputs, layer.output not in resident))
        found = menu.choose(budget, at_any_cost)
        return None if found is None else Choice(found[0], found[1].sram_bytes, Tiled(index, found[1]))

    def cascades(self, first: int, last: int, resident: Names) -> list[Choice]:
        """Cascades over layers, given the resident tensors among those that enter or leave; fastest first."""
        key = (first, last, resident)
        if key not in self._known:
            choices = [self._finish(draft, resident) for draft in self._drafts.get((first, last), ())]
            choices.sort(key=lambda choice: (choice.cycles, choice.sram_bytes))
            front: list[Choice] = []
            for choice in choices:
                if not front or choice.sram_bytes < front[-1].sram_bytes:
                    front.append(choice)
            self._known[key] = front
        return self._known[key]

    def _draft(self, last: int, capacity: int) -> None:
        """The cascades that end with a layer and whose inner buffers fit."""
        layers, lives = self._model.layers, self._lives
        if layers[last].lowering.gathers:
            return
        for stripe in self._cascades.stripes(last):
            price, parameters, rings = Price(), 0, 0
            begin = last + 1
            for shape in self._cascades.ending(last, stripe):
                for index in range(shape.first, begin):
                    name = layers[index].output
                    ring = shape.made[name]
                    price = price + self._stripes_price(index, ring.done)
                    parameters += -(-self._parameter_bytes[index] // 16) * 16
                    if self._inside(name, last):
                        rings += self._row_buffer(name, ring.slots).size
                begin = shape.first
                if parameters + rings > capacity:
                    break
                self._drafts.setdefault((shape.first, last), []).append(_Draft(shape, price, parameters + rings))

    def _inside(self, name: str, last: int) -> bool:
        """Whether nothing after a layer, and no output, needs a tensor."""
        return name not in self._lives.outputs and self._lives.last.get(name, -1) <= last

    def _finish(self, draft: _Draft, resident: Names) -> Choice:
        model, lives, shape, march = self._model, self._lives, draft.shape, self._target.march
        price, sram = draft.computing, draft.inner_bytes
        rings: dict[str, MapBuffer] = {}
        inputs: dict[str, MapBuffer] = {}
        for name, ring in shape.made.items():
            inside = self._inside(name, shape.last)
            if not inside and (name not in resident or name in lives.outputs):
                price = price + self._streaming_price(name, ring.done)
            if name in resident:
                continue
            rings[name] = self._row_buffer(name, ring.slots if inside else ring.streaming_slots)
            sram += 0 if inside else rings[name].size
        for name, ring in shape.taken.items():
            if model.root(name) not in resident:
                inputs[name] = self._row_buffer(name, ring.streaming_slots)
                sram += inputs[name].size
                price = price + self._streaming_price(name, ring.done)
        parameters = {index: self._parameter_bytes[index] for index in range(shape.first, shape.last + 1)}
        for size in parameters.values():
            price = price + parameter_price(size, march)
        return Choice(price.cycles(march, shape.steps), sram, Cascade(shape, rings, inputs, parameters))

    def _stripes_price(self, index: int, done: np.ndarray) -> Price:
        """A layer's computation in steps of so many rows."""
        total = Price()
        rows, counts = np.unique(np.diff(done, prepend=0), return_counts=True)
        for count, times in zip(rows.tolist(), counts.tolist(), strict=True):
            if count:
                total = total + self._rows_price(index, count).times(times)
        return total

    def _rows_price(self, index: int, rows: int) -> Price:
        key = (index, rows)
        if key not in self._prices:
            lowering, march = self._model.layers[index].lowering, self._target.march
            out = lowering.output
            # Rows in the middle: those at the border need less.
            begin = (out.height - rows) // 2
            region = Region((begin, begin + rows), (0, out.width), (0, out.channels))
            self._prices[key] = compute_price(lowering.cycles(region, march), march)
        return self._prices[key]

    def _streaming_price(self, name: str, done: np.ndarray) -> Price:
        """A tensor's way to or from DDR, some rows in each step."""
        moves = int(np.count_nonzero(np.diff(done, prepend=0)))
        return self._transfer(self._model.maps[name].dense_bytes, moves)

    def _transfer(self, dense_bytes: int, moves: int) -> Price:
        each = transfer_price(math.ceil(dense_bytes / max(moves, 1)), 1, self._target.march)
        return each.times(moves)

    def _row_buffer(self, name: str, rows: int) -> MapBuffer:
        return row_buffer(self._model.maps[name], rows, self._target.march)
