"""Batches at the door of an executor: refused with a reason before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from carkp_core.errors import CarkpError, GraphError
from carkp_core.ir.graph import Graph

Array = npt.NDArray[Any]


@frozen
class Declared:
    """An input as a graph or a program declares it; ``shape`` has N = 1."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float


@frozen
class Door:
    """What is to be run, in words, and the error that its callers expect."""

    owner: str
    error: type[CarkpError] = GraphError
    where: str | None = None


def check_inputs(graph: Graph, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
    """The inputs by name and the number of images, once names, types, layouts and shapes are the graph's.

    Raises
    ------
    GraphError
        When they are not; it says what to do.
    """
    declared = [Declared(i.name, tuple(i.type.shape), i.type.dtype, float(i.type.scale)) for i in graph.inputs]
    return check_batch(declared, inputs, Door(f"graph {graph.name!r}"))


def check_batch(declared: Sequence[Declared], inputs: Mapping[str, Array], door: Door) -> tuple[dict[str, Array], int]:
    """The same for any list of inputs; raises the door's error."""
    names = [one.name for one in declared]
    if not isinstance(inputs, Mapping):
        seen, remedy = type(inputs).__name__, f"pass a dict of arrays by name: {{{names[0]!r}: x}}"
        raise door.error(f"{door.owner} takes its inputs by name", where=door.where, seen=seen, remedy=remedy)
    for name in inputs:
        if name not in names:
            raise door.error(f"{door.owner} has no input {name!r}", where=door.where, allowed=", ".join(names))
    checked = {}
    for one in declared:
        if one.name not in inputs:
            seen = ", ".join(inputs) or "no inputs"
            raise door.error(f"input {one.name!r} is missing", where=door.where, seen=seen, allowed=", ".join(names))
        checked[one.name] = _checked(one, inputs[one.name], door)
    counts = {name: value.shape[0] for name, value in checked.items()}
    if len(set(counts.values())) > 1:
        seen = ", ".join(f"{name} {count}" for name, count in counts.items())
        message = "inputs differ in their number of images"
        raise door.error(message, where=door.where, seen=seen, allowed="one number for all")
    return checked, next(iter(counts.values()), 1)


def _checked(declared: Declared, value: Array, door: Door) -> Array:
    if not isinstance(value, np.ndarray):
        message = f"input {declared.name!r} is not a numpy array"
        raise door.error(message, where=door.where, seen=type(value).__name__)
    right_type, right_shape = value.dtype == declared.dtype, value.shape[1:] == declared.shape[1:]
    if right_type and right_shape:
        return value
    what = "another type" if right_shape else "another shape" if right_type else "another type and shape"
    raise door.error(
        f"input {declared.name!r} has {what}",
        where=door.where,
        seen=f"{value.dtype} {value.shape}",
        allowed=f"{declared.dtype} (N, {', '.join(map(str, declared.shape[1:]))})",
        remedy=_remedy(declared, value),
    )


def _remedy(declared: Declared, value: Array) -> str:
    shape = declared.shape[1:]
    if value.shape == shape:
        return "add the batch dimension: x[None]"
    if len(shape) == 3 and value.shape[1:] == (*shape[1:], shape[0]):
        return "this looks like NHWC; pass x.transpose(0, 3, 1, 2)"
    if value.dtype.kind == "f":
        return f"quantize it first: round(x / {declared.scale:g})"
    if value.dtype == np.uint8 and declared.dtype == "int8":
        return "centre it first: (x.astype(np.int16) - 128).astype(np.int8)"
    if value.shape[1:] != shape:
        return "resize or pad it to the size that the network was converted for"
    return f"give its integers as {declared.dtype}; check that none is outside that type's range"
