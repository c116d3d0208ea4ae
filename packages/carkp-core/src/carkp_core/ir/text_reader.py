"""Reads the full text form of an integer graph (``ir.text``), with messages that name the line."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_core.errors import GraphError
from carkp_core.ir.fields import make_operation
from carkp_core.ir.graph import Graph, GraphInput, Node, Operation, Source, TensorType
from carkp_core.ir.operators import OPERATIONS
from carkp_core.ir.verify import verify

_ARRAY_DTYPES = ("int8", "int16", "int32", "int64")
_DECODER = json.JSONDecoder()

_NAME = r'"(?:[^"\\]|\\.)*"|[\w./-]+'
_TYPE = r"(?P<dtype>\w+)(?P<shape>\[[\d, ]*\])"
_META = re.compile(rf"meta (?P<key>{_NAME}): (?P<value>.*)")
_INPUT = re.compile(rf"input (?P<name>{_NAME}): {_TYPE} \* (?P<scale>\S+)(?:  (?P<note>\".*\"))?")
_NODE = re.compile(
    rf"(?P<name>{_NAME}): {_TYPE} \* (?P<scale>\S+) = (?P<kind>[\w./-]+)"
    rf"\((?P<inputs>(?:(?:{_NAME})(?:, (?:{_NAME}))*)?)\)(?P<fields>.*)"
)
_FIELD = re.compile(r" (\w+)=")
_ARRAY = re.compile(rf"array (?P<number>\d+): {_TYPE}")


def from_text(text: str, operations: Iterable[type[Operation]] = OPERATIONS, where: str | None = None) -> Graph:
    """Parse a graph's full text form and verify it.

    Parameters
    ----------
    text:
        What ``ir.text.to_text`` made.
    operations:
        The operator classes that may occur; plugins add theirs to core's ``OPERATIONS``.
    where:
        The file's name, for messages.

    Raises
    ------
    GraphError
        A line that cannot be read, or a graph that breaks a rule of the IR.
    """
    reader = _Reader({operation.kind: operation for operation in operations})
    number, line = 0, ""
    try:
        lines = list(enumerate(text.splitlines(), start=1))
        arrays_at = next((index for index, (_, line) in enumerate(lines) if line.startswith("array ")), len(lines))
        for part in (lines[arrays_at:], lines[:arrays_at]):
            for place in part:
                number, line = place
                reader.read(line)
            reader.end_array()
        graph = reader.graph()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise GraphError(
            f"the line cannot be read: {error}", where=f"{where or 'text'}:{number}", seen=line[:120]
        ) from error
    verify(graph)
    return graph


class _Reader:
    """Arrays come first, since nodes are made from them."""

    def __init__(self, kinds: dict[str, type[Operation]]) -> None:
        self._kinds = kinds
        self._arrays: list[npt.NDArray[Any]] = []
        self._open: tuple[str, tuple[int, ...]] | None = None
        self._encoded: list[str] = []
        self._name: str | None = None
        self._metadata: dict[str, str] = {}
        self._inputs: list[GraphInput] = []
        self._nodes: list[Node] = []
        self._outputs: tuple[str, ...] = ()

    def read(self, line: str) -> None:
        """Take in one line."""
        if line.startswith("  "):
            if self._open is None:
                raise ValueError("an array's line outside an array")
            self._encoded.append(line.strip())
            return
        self.end_array()
        if match := _ARRAY.fullmatch(line):
            if int(match["number"]) != len(self._arrays):
                raise ValueError(f"array {len(self._arrays)} is missing")
            self._open = (match["dtype"], _shape(match["shape"]))
        elif line.startswith("graph "):
            self._name = str(json.loads(line.removeprefix("graph ")))
        elif match := _META.fullmatch(line):
            self._metadata[_unquoted(match["key"])] = str(json.loads(match["value"]))
        elif match := _INPUT.fullmatch(line):
            note = json.loads(match["note"]) if match["note"] else ""
            self._inputs.append(GraphInput(_unquoted(match["name"]), _type(match), note))
        elif line.startswith("output "):
            self._outputs = tuple(map(_unquoted, re.findall(_NAME, line.removeprefix("output "))))
        elif match := _NODE.fullmatch(line):
            self._nodes.append(self._node(match))
        else:
            raise ValueError("it is no graph, meta, input, output, array or node")

    def graph(self) -> Graph:
        """The whole graph, after the last line."""
        if self._name is None or not self._outputs:
            raise ValueError("there is no graph or no output line")
        return Graph(self._name, tuple(self._inputs), tuple(self._nodes), self._outputs, self._metadata)

    def end_array(self) -> None:
        """Keep the array whose lines were read, if there is one."""
        if self._open is None:
            return
        (dtype, shape), data = self._open, base64.b64decode("".join(self._encoded), validate=True)
        self._open, self._encoded = None, []
        if dtype not in _ARRAY_DTYPES:
            raise ValueError(f"an array of {dtype}")
        stored = np.dtype(dtype).newbyteorder("<")
        if len(data) != math.prod(shape) * stored.itemsize:
            raise ValueError(f"array {len(self._arrays)} has {len(data)} bytes for {dtype}{list(shape)}")
        array = np.frombuffer(data, stored).reshape(shape).astype(dtype)
        array.flags.writeable = False
        self._arrays.append(array)

    def _node(self, match: re.Match[str]) -> Node:
        kind = match["kind"]
        if kind not in self._kinds:
            raise ValueError(f"unknown operator {kind!r}, known are {', '.join(sorted(self._kinds))}")
        fields, source = _fields(match["fields"])
        inputs = tuple(map(_unquoted, re.findall(_NAME, match["inputs"])))
        op = make_operation(self._kinds[kind], fields, self._arrays)
        return Node(_unquoted(match["name"]), op, inputs, _type(match), source)


def _fields(text: str) -> tuple[dict[str, Any], Source]:
    """``name=JSON`` separated by blanks, then perhaps ``# JSON`` of the source."""
    fields, position = {}, 0
    while match := _FIELD.match(text, position):
        fields[match[1]], position = _DECODER.raw_decode(text, match.end())
    rest = text[position:]
    if not rest:
        return fields, Source()
    if not rest.startswith("  # "):
        raise ValueError(f"unexpected {rest[:40]!r}")
    module_path, file, line = json.loads(rest.removeprefix("  # "))
    return fields, Source(str(module_path), str(file), int(line))


def _type(match: re.Match[str]) -> TensorType:
    return TensorType(_shape(match["shape"]), match["dtype"], float(match["scale"]))


def _shape(text: str) -> tuple[int, ...]:
    return tuple(json.loads(text))


def _unquoted(name: str) -> str:
    return str(json.loads(name)) if name.startswith('"') else name
