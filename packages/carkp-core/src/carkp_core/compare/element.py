"""How one integer of a layer came about: what was rescaled, by which multiplier and shift, and what the IR makes of it.

Legend: an index is [C, Y, X] (or whatever a tensor has behind its first dimension), without the image's number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from attrs import frozen

from carkp_core.ir import operators as ops
from carkp_core.ir import reference
from carkp_core.ir.graph import Node

Array = npt.NDArray[Any]
Index = tuple[int, ...]

#: A rescale by 1 without a clamp: what it leaves of an operator is its accumulator.
_UNIT = {"multiplier": 1 << 30, "shift": 30, "lo": -(1 << 62), "hi": 1 << 62}


@frozen
class Term:
    """One number that is rescaled: ``value * multiplier / 2**shift`` steps of the output.

    ``name`` is ``accumulator`` for a product, a sum of products (bias included) or of a window; else the tensor it is
    read from.
    """

    name: str
    value: int
    multiplier: int
    shift: int
    negative: bool = False

    @property
    def exact(self) -> float:
        """In steps of the output, before rounding and clamping."""
        steps = math.ldexp(self.value * self.multiplier, -self.shift)
        return -steps if self.negative else steps


def terms_of(node: Node, inputs: Sequence[Array], index: Index) -> tuple[Term, ...]:
    """What is rescaled for one element of a node's output.

    Parameters
    ----------
    node:
        A node of an integer graph.
    inputs:
        The node's inputs for one image, [1, ...] each.
    index:
        The element, without the first dimension.

    Returns
    -------
    tuple
        One term for most operators; the accumulator first and the residual behind it for a convolution with an add,
        all inputs for an add; nothing for operators that rescale nothing.
    """
    finder = _FINDERS.get(type(node.op))
    return tuple(finder(node, inputs, index)) if finder else ()


def expected(node: Node, inputs: Sequence[Array], index: Index) -> int:
    """What the reference executor gives for one element, from one image's inputs [1, ...]."""
    return int(reference.execute_node(node, tuple(inputs))[(0, *index)])


def accumulator(node: Node, inputs: Sequence[Array]) -> Array:
    """What a node rescales, int64 [1, ...]: its result with a rescale by 1 and no clamp."""
    op: Any = node.op
    changes = {key: np.full_like(getattr(op, key), value) if isinstance(getattr(op, key), np.ndarray) else value
               for key, value in _UNIT.items()}  # fmt: skip
    if isinstance(op, ops.Conv2d):
        changes["residual"] = None
        inputs = inputs[:1]
    plain = attrs.evolve(node, op=attrs.evolve(op, **changes), type=attrs.evolve(node.type, dtype="int64"))
    return reference.execute_node(plain, tuple(inputs))


def _accumulated(node: Node, inputs: Sequence[Array], index: Index, multiplier: Any, shift: Any) -> Term:
    return Term("accumulator", int(accumulator(node, inputs)[(0, *index)]), int(multiplier), int(shift))


def _input(node: Node, inputs: Sequence[Array], number: int, term: ops.Term, index: Index) -> Term:
    """An input that is rescaled as it stands."""
    return Term(node.inputs[number], _at(inputs[number], index), term.multiplier, term.shift, term.negative)


def _at(value: Array, index: Index) -> int:
    """The element that stands at an index of the output; dimensions of size 1 are broadcast."""
    inside = value.shape[1:]
    place = tuple(0 if size == 1 else i for size, i in zip(inside, index[len(index) - len(inside) :], strict=True))
    return int(value[(0, *place)])


def _convolution(node: Node, inputs: Sequence[Array], index: Index) -> Iterator[Term]:
    op: Any = node.op
    yield _accumulated(node, inputs, index, op.multiplier[index[0]], op.shift[index[0]])
    if getattr(op, "residual", None) is not None:
        yield _input(node, inputs, 1, op.residual, index)


def _sum(node: Node, inputs: Sequence[Array], index: Index) -> Iterator[Term]:
    op: Any = node.op
    for number, term in enumerate(op.terms):
        yield _input(node, inputs, number, term, index)


def _joined(node: Node, inputs: Sequence[Array], index: Index) -> Iterator[Term]:
    op: Any = node.op
    axis, place = op.axis - 1, list(index)
    for number, (term, value) in enumerate(zip(op.terms, inputs, strict=True)):
        if place[axis] < value.shape[op.axis]:
            yield _input(node, inputs, number, term, tuple(place))
            return
        place[axis] -= value.shape[op.axis]


def _product(node: Node, inputs: Sequence[Array], index: Index) -> Iterator[Term]:
    op: Any = node.op
    yield Term("accumulator", _at(inputs[0], index) * _at(inputs[1], index), op.multiplier, op.shift)


def _scalar(node: Node, inputs: Sequence[Array], index: Index) -> Iterator[Term]:
    op: Any = node.op
    yield _accumulated(node, inputs, index, op.multiplier, op.shift)


def _average(node: Node, inputs: Sequence[Array], index: Index) -> Iterator[Term]:
    op: Any = node.op
    count = int(reference.counted_positions(op, inputs[0].shape[2:])[(0, 0, *index[1:])])
    yield _accumulated(node, inputs, index, op.multiplier[count], op.shift[count])


def _resized(node: Node, inputs: Sequence[Array], index: Index) -> Iterator[Term]:
    op: Any = node.op
    if op.mode == "bilinear":
        yield from _scalar(node, inputs, index)


_FINDERS: dict[type, Callable[[Node, Sequence[Array], Index], Iterator[Term]]] = {
    ops.Conv2d: _convolution,
    ops.ConvTranspose2d: _convolution,
    ops.Add: _sum,
    ops.Concat: _joined,
    ops.Mul: _product,
    ops.Rescale: _scalar,
    ops.AvgPool: _average,
    ops.Resize: _resized,
}


def parameter_differences(a: Node, b: Node) -> list[str]:
    """In what two nodes of one name differ: operator, fields, inputs, type; each in words."""
    found: list[str] = []
    kind: Any = type(a.op)
    if a.op.kind != b.op.kind:
        found.append(f"operator: {a.op.kind} and {b.op.kind}")
    elif attrs.has(kind):
        for name in (field.name for field in attrs.fields(kind)):
            found += _difference(name, getattr(a.op, name), getattr(b.op, name))
    if a.inputs != b.inputs:
        found.append(f"inputs: {', '.join(a.inputs)} and {', '.join(b.inputs)}")
    for name in ("dtype", "scale", "shape"):
        found += _difference(name, getattr(a.type, name), getattr(b.type, name))
    return found


def _difference(name: str, a: Any, b: Any) -> list[str]:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape != b.shape:
            return [f"{name}: shape {a.shape} and {b.shape}"]
        places = np.argwhere(a != b)
        if not len(places):
            return []
        first = tuple(int(i) for i in places[0])
        return [f"{name}: {len(places):,} of {a.size:,} differ, first [{_listed(first)}]: {a[first]} and {b[first]}"]
    return [] if a == b else [f"{name}: {a} and {b}"]


def _listed(index: Index) -> str:
    return ", ".join(map(str, index))
