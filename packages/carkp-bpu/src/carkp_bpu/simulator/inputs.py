"""Batches at the door of the simulator: refused with a reason before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_core.errors import GraphError
from carkp_core.ir.graph import Graph, GraphInput

Array = npt.NDArray[Any]


def check_inputs(graph: Graph, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
    """The inputs by name and the number of images, once names, types, layouts and shapes are the graph's.

    Raises
    ------
    GraphError
        When they are not; it says what to do.
    """
    names = [declared.name for declared in graph.inputs]
    for name in inputs:
        if name not in names:
            raise GraphError(f"graph {graph.name!r} has no input {name!r}", allowed=", ".join(names))
    checked = {}
    for declared in graph.inputs:
        if declared.name not in inputs:
            seen = ", ".join(inputs) or "no inputs"
            raise GraphError(f"input {declared.name!r} is missing", seen=seen, allowed=", ".join(names))
        checked[declared.name] = _checked(declared, inputs[declared.name])
    counts = {name: value.shape[0] for name, value in checked.items()}
    if len(set(counts.values())) > 1:
        seen = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise GraphError("inputs differ in their number of images", seen=seen, allowed="one number for all")
    return checked, next(iter(counts.values()), 1)


def _checked(declared: GraphInput, value: Array) -> Array:
    expected = declared.type
    if not isinstance(value, np.ndarray):
        raise GraphError(f"input {declared.name!r} is not a numpy array", seen=type(value).__name__)
    if value.dtype == expected.dtype and value.shape[1:] == tuple(expected.shape[1:]):
        return value
    raise GraphError(
        f"input {declared.name!r} has another type",
        seen=f"{value.dtype} {value.shape}",
        allowed=f"{expected.dtype} (N, {', '.join(map(str, expected.shape[1:]))})",
        remedy=_remedy(declared, value),
    )


def _remedy(declared: GraphInput, value: Array) -> str | None:
    shape = tuple(declared.type.shape[1:])
    if value.shape == shape:
        return "add the batch dimension: x[None]"
    if len(shape) == 3 and value.shape[1:] == (*shape[1:], shape[0]):
        return "this looks like NHWC; pass x.transpose(0, 3, 1, 2)"
    if value.dtype.kind == "f":
        return f"quantize it first: round(x / {declared.type.scale:g})"
    if value.dtype == np.uint8 and declared.type.dtype == "int8":
        return "centre it first: (x.astype(np.int16) - 128).astype(np.int8)"
    return None
