"""The deterministic text forms of an integer graph: a short one for people, goldens and digests, and a full one.

One line a node. In the short form arrays appear as type, shape and the start of their SHA-256::

    graph "tiny"
    input img: int8[1, 3, 8, 8] * 0.0078125  "pixel - 128"
    stem: int8[1, 4, 4, 4] * 0.05 = conv2d(img) bias=int32[4]:1f0c... hi=127 lo=0 ...  # backbone.stem (net.py:12)
    output stem

The full form loses nothing, and ``text_reader.from_text`` reads it back: a node names its arrays by number, and they
follow at the end, little endian in base64, while sources are JSON::

    stem: int8[1, 4, 4, 4] * 0.05 = conv2d(img) bias={"array": 0} ...  # ["backbone.stem", "net.py", 12]
    output stem
    array 0: int32[4]
      AQAAAAIAAAADAAAABAAAAA==

Names that are not made of letters, digits and ``_ . - /`` are written in quotes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_core.ir.fields import plain_fields
from carkp_core.ir.graph import Graph, Node, Source, TensorType, array_bytes

#: Characters of one line of an array in the full form.
ARRAY_COLUMNS = 112
_BARE_NAME = re.compile(r"[\w./-]+")


def format_graph(graph: Graph, sources: bool = True) -> str:
    """The short form, ending in a newline; ``sources`` adds each node's place in the user's model."""
    lines = list(_head(graph))
    for node in graph.nodes:
        place = str(node.source) if sources else ""
        lines.append(_node(node) + (f"  # {place}" if place else ""))
    return "\n".join([*lines, _output(graph)]) + "\n"


def to_text(graph: Graph) -> str:
    """The full form, ending in a newline. Equal graphs give equal texts."""
    arrays: list[npt.NDArray[Any]] = []

    def keep(array: npt.NDArray[Any]) -> dict[str, int]:
        arrays.append(array)
        return {"array": len(arrays) - 1}

    lines = list(_head(graph, exact=True))
    for node in graph.nodes:
        fields = plain_fields(node.op, keep)
        listed = " ".join(f"{name}={json.dumps(fields[name])}" for name in sorted(fields))
        place = node.source
        written = "" if place == Source() else f"  # {json.dumps([place.module_path, place.file, place.line])}"
        lines.append(f"{_signature(node, exact=True)} {listed}".rstrip() + written)
    lines.append(_output(graph))
    for number, array in enumerate(arrays):
        lines.append(f"array {number}: {array.dtype}{list(array.shape)}")
        encoded = base64.b64encode(array_bytes(array)).decode()
        lines.extend(f"  {encoded[start : start + ARRAY_COLUMNS]}" for start in range(0, len(encoded), ARRAY_COLUMNS))
    return "\n".join(lines) + "\n"


def digest_lines(graph: Graph) -> Iterator[bytes]:
    """Bytes that cover everything the arithmetic depends on, and neither metadata nor sources nor names of graphs."""
    for declared in graph.inputs:
        yield f"input {_name(declared.name)}: {_type(declared.type)}\n".encode()
    for node in graph.nodes:
        yield (_node(node) + "\n").encode()
    yield (_output(graph) + "\n").encode()


def _head(graph: Graph, exact: bool = False) -> Iterator[str]:
    yield f"graph {json.dumps(graph.name)}"
    for key in sorted(graph.metadata):
        yield f"meta {_name(key)}: {json.dumps(graph.metadata[key])}"
    for declared in graph.inputs:
        note = f"  {json.dumps(declared.preprocessing)}" if declared.preprocessing else ""
        yield f"input {_name(declared.name)}: {_type(declared.type, exact)}{note}"


def _output(graph: Graph) -> str:
    return "output " + " ".join(map(_name, graph.outputs))


def _node(node: Node) -> str:
    fields = plain_fields(node.op, _digest)
    listed = " ".join(f"{name}={_field(fields[name])}" for name in sorted(fields))
    return f"{_signature(node)} {listed}".rstrip()


def _signature(node: Node, exact: bool = False) -> str:
    return f"{_name(node.name)}: {_type(node.type, exact)} = {node.op.kind}({', '.join(map(_name, node.inputs))})"


def _name(name: str) -> str:
    return name if _BARE_NAME.fullmatch(name) else json.dumps(name)


def _type(type_: TensorType, exact: bool = False) -> str:
    """The scale is a float32 to all who compute with it; ``exact`` keeps a float64 that says more."""
    scale = float(type_.scale if exact else np.float32(type_.scale))
    return f"{type_.dtype}{list(type_.shape)} * {scale!r}"


def _digest(array: npt.NDArray[Any]) -> dict[str, str]:
    digest = hashlib.sha256(array_bytes(array)).hexdigest()
    return {"digest": f"{array.dtype}{list(array.shape)}:{digest}"}


def _field(value: Any) -> str:
    if isinstance(value, dict) and "digest" in value:
        head, _, digest = value["digest"].partition(":")
        return f"{head}:{digest[:32]}"
    return json.dumps(value)
