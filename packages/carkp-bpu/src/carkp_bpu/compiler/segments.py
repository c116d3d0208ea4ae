"""The choices for a run of layers: as one cascade of some stripe height, or as one layer in tiles; with their prices.

Before: layers i to j, and which of the tensors that enter or leave stay on chip. After: the choices, fastest first,
each with the SRAM that it needs beside those tensors. Of two choices the one both slower and larger is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from attrs import field, frozen

from carkp_bpu.compiler.cascade import Cascades, Shape
from carkp_bpu.compiler.group import Model
from carkp_bpu.compiler.maps import Region
from carkp_bpu.compiler.placement import Cascade, Lives, Segment, Target, Tiled, row_buffer
from carkp_bpu.compiler.price import Price, compute_price, parameter_price, transfer_price
from carkp_bpu.compiler.reside import Menus
from carkp_bpu.compiler.tile import Streams

Names = frozenset[str]


@frozen(eq=False)
class Choice:
    """A segment as it is built when it is chosen, its time in cycles, and its own bytes of SRAM."""

    cycles: float
    sram_bytes: int
    build: Callable[[], Segment] = field(repr=False)


@frozen(eq=False)
class _Draft:
    """A cascade before it is known which tensors at its border stay on chip.

    ``price`` is that of computation and parameters, ``inner_bytes`` the SRAM of parameters and of what stays inside.
    ``border`` has, for each tensor that enters or leaves, its storage, the bytes of its rolling buffer, and the price
    of its way to or from DDR.
    """

    shape: Shape
    price: Price = field(repr=False)
    inner_bytes: int
    border: tuple[tuple[str, int, Price], ...] = field(repr=False)


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
        self._parameter_prices = [parameter_price(size, target.march) for size in self._parameter_bytes]
        self._row_bytes = {name: row_buffer(tensor, 1, target.march).size for name, tensor in model.maps.items()}
        engines = {layer.output: layer.lowering.engine for layer in model.layers}
        #: Tensors that another engine reads than makes them.
        self._handed_over = frozenset(
            name
            for layer in model.layers
            for name in layer.inputs
            if engines.get(name, layer.lowering.engine) != layer.lowering.engine
        )
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
        if found is None:
            return None
        cycles, plan = found
        return Choice(cycles, plan.sram_bytes, lambda: Tiled(index, plan))

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
        layers = self._model.layers
        for stripe in self._cascades.stripes(last):
            price, inner = Price(), 0
            begin = last + 1
            for shape in self._cascades.ending(last, stripe):
                for index in range(shape.first, begin):
                    name = layers[index].output
                    price = price + self._stripes_price(index, shape.made[name].done) + self._parameter_prices[index]
                    inner += -(-self._parameter_bytes[index] // 16) * 16
                    if self._inside(name, last):
                        inner += self._slots(shape, name) * self._row_bytes[name]
                begin = shape.first
                if inner > capacity:
                    break
                draft = _Draft(shape, price, inner, tuple(self._border(shape)))
                self._drafts.setdefault((shape.first, last), []).append(draft)

    def _border(self, shape: Shape) -> Iterator[tuple[str, int, Price]]:
        """The tensors that enter or leave a cascade."""
        leaving = [(name, ring) for name, ring in shape.made.items() if not self._inside(name, shape.last)]
        for name, ring in (*leaving, *shape.taken.items()):
            moves = int(np.count_nonzero(np.diff(ring.done, prepend=0)))
            size = ring.streaming_slots * self._row_bytes[name]
            yield self._model.root(name), -(-size // 16) * 16, self._streaming_price(name, moves)

    def _slots(self, shape: Shape, name: str) -> int:
        """Rows of a ring: with room for the next step's, if engine or DMA read them beside the one that makes them."""
        ring = shape.made[name]
        alone = self._inside(name, shape.last) and name not in self._handed_over
        return ring.slots if alone else ring.streaming_slots

    def _inside(self, name: str, last: int) -> bool:
        """Whether nothing after a layer, and no output, needs a tensor."""
        return name not in self._lives.outputs and self._lives.last.get(name, -1) <= last

    def _finish(self, draft: _Draft, resident: Names) -> Choice:
        price, sram = draft.price, draft.inner_bytes
        for root, size, streaming in draft.border:
            if root not in resident:
                price, sram = price + streaming, sram + size
            elif root in self._lives.outputs:
                price = price + streaming
        cycles = price.cycles(self._target.march, draft.shape.steps)
        return Choice(cycles, sram, lambda: self._build(draft.shape, resident))

    def _build(self, shape: Shape, resident: Names) -> Cascade:
        """The buffers of a cascade."""
        maps, march = self._model.maps, self._target.march
        slots = {name: self._slots(shape, name) for name in shape.made if name not in resident}
        rings = {name: row_buffer(maps[name], count, march) for name, count in slots.items()}
        inputs = {
            name: row_buffer(maps[name], ring.streaming_slots, march)
            for name, ring in shape.taken.items()
            if self._model.root(name) not in resident
        }
        parameters = {index: self._parameter_bytes[index] for index in range(shape.first, shape.last + 1)}
        return Cascade(shape, rings, inputs, parameters)

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

    def _streaming_price(self, name: str, moves: int) -> Price:
        """A tensor's way to or from DDR, some rows at a time."""
        share = math.ceil(self._model.maps[name].dense_bytes / max(moves, 1))
        return transfer_price(share, 1, self._target.march).times(moves)
