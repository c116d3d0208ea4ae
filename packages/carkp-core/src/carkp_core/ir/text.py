"""The deterministic text form of an integer graph, for people, goldens and digests.

One line a node; arrays appear as type, shape and the start of their SHA-256::

    graph "tiny"
    input img: int8[1, 3, 8, 8] * 0.0078125  "pixel - 128"
    stem: int8[1, 4, 4, 4] * 0.05 = conv2d(img) bias=int32[4]:1f0c... hi=127 lo=0 ...  # backbone.stem (net.py:12)
    output stem
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_core.ir.fields import plain_fields
from carkp_core.ir.graph import Graph, Node, TensorType, array_bytes


def format_graph(graph: Graph, sources: bool = True) -> str:
    """The whole graph as text, ending in a newline; ``sources`` adds each node's place in the user's model."""
    return "\n".join(_lines(graph, sources)) + "\n"


def digest_lines(graph: Graph) -> Iterator[bytes]:
    """Bytes that cover everything the arithmetic depends on, and neither metadata nor sources nor names of graphs."""
    for declared in graph.inputs:
        yield f"input {declared.name}: {_type(declared.type)}\n".encode()
    for node in graph.nodes:
        yield (_node(node) + "\n").encode()
    yield ("output " + " ".join(graph.outputs) + "\n").encode()


def _lines(graph: Graph, sources: bool) -> Iterator[str]:
    yield f"graph {json.dumps(graph.name)}"
    for key in sorted(graph.metadata):
        yield f"meta {key}: {json.dumps(graph.metadata[key])}"
    for declared in graph.inputs:
        note = f"  {json.dumps(declared.preprocessing)}" if declared.preprocessing else ""
        yield f"input {declared.name}: {_type(declared.type)}{note}"
    for node in graph.nodes:
        place = str(node.source) if sources else ""
        yield _node(node) + (f"  # {place}" if place else "")
    yield "output " + " ".join(graph.outputs)


def _node(node: Node) -> str:
    fields = plain_fields(node.op, _array)
    listed = " ".join(f"{name}={_field(fields[name])}" for name in sorted(fields))
    return f"{node.name}: {_type(node.type)} = {node.op.kind}({', '.join(node.inputs)}) {listed}".rstrip()


def _type(type_: TensorType) -> str:
    return f"{type_.dtype}{list(type_.shape)} * {float(np.float32(type_.scale))!r}"


def _array(array: npt.NDArray[Any]) -> dict[str, str]:
    digest = hashlib.sha256(array_bytes(array)).hexdigest()
    return {"digest": f"{array.dtype}{list(array.shape)}:{digest}"}


def _field(value: Any) -> str:
    if isinstance(value, dict) and "digest" in value:
        head, _, digest = value["digest"].partition(":")
        return f"{head}:{digest[:32]}"
    return json.dumps(value)
