"""Two integer models side by side: how many elements of each layer differ, and how the first difference came about.

Legend: ``N`` images of a batch; an element's index is [C, Y, X], without the image's number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_core.backend import Arrays
from carkp_core.compare.element import Index, Term, expected, parameter_differences, terms_of
from carkp_core.compare.sides import Side
from carkp_core.errors import GraphError
from carkp_core.ir.graph import Node

Array = npt.NDArray[Any]


@frozen
class LayerCount:
    """A layer's elements over all images, and those that differ. ``max_difference`` is in steps, None without any."""

    name: str
    op: str
    source: str
    elements: int = 0
    differing: int = 0
    max_difference: int | None = None


@frozen
class Witness:
    """One side's element: its value, what was rescaled, and what the reference executor makes of the same numbers.

    ``terms`` are empty and ``reference`` is None where the side cannot show the layer's inputs.
    """

    value: int
    terms: tuple[Term, ...] = ()
    reference: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; accumulator, multiplier and shift are the first term's."""
        first = self.terms[0] if self.terms else None
        return {
            "value": self.value,
            "accumulator": first.value if first else None,
            "multiplier": first.multiplier if first else None,
            "shift": first.shift if first else None,
            "terms": [attrs.asdict(term) for term in self.terms],
            "reference": self.reference,
        }


@frozen
class Divergence:
    """The first element, in execution order, at which two sides part."""

    layer: str
    op: str
    source: str
    image: str
    index: Index
    a: Witness
    b: Witness
    #: In what the layer's own numbers differ between the sides' integer models, in words.
    parameters: tuple[str, ...] = ()
    #: Inputs of the layer that one of the sides does not show.
    hidden_inputs: tuple[str, ...] = ()
    #: A runtime's float arithmetic is one of the sides.
    onnx: bool = False

    def explanation(self, a: str, b: str) -> str:
        """Who is at fault, in one sentence, as far as it can be told."""
        wrong = [name for name, w in ((a, self.a), (b, self.b)) if w.reference is not None and w.reference != w.value]
        if self.parameters:
            return "the layer itself differs: " + "; ".join(self.parameters)
        if self.onnx and wrong:
            steps = sum(term.exact for term in self.a.terms or self.b.terms)
            tie = abs(steps - math.floor(steps) - 0.5)
            return f"a runtime computes in float32 and rounds half to even; the exact value is {tie:.2g} off a tie"
        if len(wrong) == 1:
            return f"{wrong[0]} does not give what its own numbers say; the reference executor agrees with the other"
        if wrong:
            return "neither side gives what its own numbers say"
        if self.hidden_inputs:
            return f"an input is not shown by both sides, so the cause may lie before: {', '.join(self.hidden_inputs)}"
        return "the layer's inputs differ"

    def rows(self) -> list[tuple[str, str, str]]:
        """The numbers behind it for people: what each is, and its value on both sides (empty where unknown)."""
        sides = (self.a, self.b)
        rows = [_row("value", [side.value for side in sides])]
        for number in range(max(len(side.terms) for side in sides)):
            terms = [side.terms[number] if number < len(side.terms) else None for side in sides]
            rows.append(_row(next(term.name for term in terms if term), [term and term.value for term in terms]))
            rows.append(_row("  multiplier", [term and term.multiplier for term in terms]))
            rows.append(_row("  shift", [term and term.shift for term in terms]))
            rows.append(_row("  exact, in steps", [term and f"{term.exact:.9g}" for term in terms]))
        if any(side.reference is not None for side in sides):
            rows.append(_row("reference executor", [side.reference for side in sides]))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "layer": self.layer,
            "op": self.op,
            "source": self.source,
            "image": self.image,
            "index": list(self.index),
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "parameters": list(self.parameters),
            "hidden_inputs": list(self.hidden_inputs),
        }


def _row(title: str, values: Sequence[Any]) -> tuple[str, str, str]:
    a, b = ("" if value is None else str(value) for value in values)
    return title, a, b


@frozen
class IntegerFindings:
    """Every common layer in execution order, and the first difference if there is one."""

    layers: tuple[LayerCount, ...]
    first: Divergence | None = None

    @property
    def elements(self) -> int:
        """All integers compared."""
        return sum(layer.elements for layer in self.layers)

    @property
    def differing(self) -> int:
        """Those that differ."""
        return sum(layer.differing for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "elements": self.elements,
            "differing_elements": self.differing,
            "first": None if self.first is None else self.first.to_json(),
            "layers": [attrs.asdict(layer) for layer in self.layers],
        }


@frozen(eq=False)
class IntegerComparison:
    """Takes in batches and keeps the counts and the first difference."""

    a: Side
    b: Side
    names: Sequence[str]
    _counts: dict[str, LayerCount] = field(factory=dict, init=False)
    _first: list[Divergence] = field(factory=list, init=False)

    def take(self, images: Sequence[str], a: Arrays, b: Arrays) -> None:
        """Compare the tensors of a batch; ``images`` are its names.

        Raises
        ------
        GraphError
            When a tensor has another shape on each side.
        """
        for name in self.names:
            left, right = both(name, a, b, len(images))
            differs = left != right
            count = int(np.count_nonzero(differs))
            self._count(name, left, right, count)
            if count and self._is_first(name):
                where = tuple(int(i) for i in np.argwhere(differs)[0])
                self._first[:] = [self._divergence(name, images[where[0]], where, a, b)]

    def findings(self) -> IntegerFindings:
        """What was found so far."""
        return IntegerFindings(tuple(self._counts.values()), self._first[0] if self._first else None)

    def _count(self, name: str, left: Array, right: Array, differing: int) -> None:
        known = self._counts.get(name)
        if known is None:
            kind = self.a.tensors[name]
            known = LayerCount(name, kind.op, kind.source or self.b.tensors[name].source)
        largest = known.max_difference
        if differing:
            steps = np.abs(left.astype(np.int64) - right.astype(np.int64))
            largest = max(largest or 0, int(steps.max()))
        self._counts[name] = attrs.evolve(
            known, elements=known.elements + left.size, differing=known.differing + differing, max_difference=largest
        )

    def _is_first(self, name: str) -> bool:
        order = list(self.names)
        return not self._first or order.index(name) < order.index(self._first[0].layer)

    def _divergence(self, name: str, image: str, where: Index, a: Arrays, b: Arrays) -> Divergence:
        kind, (number, *rest) = self.a.tensors[name], where
        index, one, other = tuple(rest), _node(self.a, name), _node(self.b, name)
        given = one or other
        return Divergence(
            name,
            kind.op,
            kind.source or self.b.tensors[name].source,
            image,
            index,
            _witness(one, a, name, number, index),
            _witness(other, b, name, number, index),
            tuple(parameter_differences(one, other)) if one and other else (),
            tuple(i for i in given.inputs if i not in a or i not in b) if given else (),
            onnx=self.a.kind == "onnx" or self.b.kind == "onnx",
        )


def both(name: str, a: Arrays, b: Arrays, images: int) -> tuple[Array, Array]:
    """A tensor of both sides, [N, ...]; a constant is repeated for each image.

    Raises
    ------
    GraphError
        When the shapes differ.
    """
    left, right = a[name], b[name]
    if left.shape[1:] != right.shape[1:]:
        raise GraphError(
            "the tensor has another shape on each side",
            where=name,
            seen=f"{left.shape[1:]} and {right.shape[1:]}",
            remedy="convert and compile again for the present input size",
        )
    return _repeated(left, images), _repeated(right, images)


def _repeated(value: Array, images: int) -> Array:
    return value if len(value) == images else np.broadcast_to(value, (images, *value.shape[1:]))


def _node(side: Side, name: str) -> Node | None:
    nodes = side.graph.nodes if side.graph is not None else ()
    return next((node for node in nodes if node.name == name), None)


def _witness(node: Node | None, values: Mapping[str, Array], name: str, number: int, index: Index) -> Witness:
    """One side's element, worked out again from the side's own inputs where it shows them."""
    value = int(_of_image(values[name], number)[(0, *index)])
    if node is None or any(i not in values for i in node.inputs):
        return Witness(value)
    inputs = [_of_image(values[i], number) for i in node.inputs]
    return Witness(value, terms_of(node, inputs, index), expected(node, inputs, index))


def _of_image(value: Array, number: int) -> Array:
    return value if len(value) == 1 else value[number : number + 1]
