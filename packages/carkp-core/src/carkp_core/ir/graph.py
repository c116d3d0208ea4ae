"""The integer graph: named tensors, nodes in execution order, and where each came from.

Tensors are NCHW with N = 1 in their types; executors accept any N. A node has one output, named as the node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_core.errors import GraphError

DTYPES = ("int8", "int16", "int32", "float32")


@frozen
class TensorType:
    """Shape with N = 1, integer type, and the float32 value of one step. ``float32`` only off the NPU."""

    shape: tuple[int, ...]
    dtype: str
    scale: float

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        """The same steps in another shape."""
        return TensorType(shape, self.dtype, self.scale)


@frozen
class Source:
    """Where a node came from in the user's model."""

    module_path: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else ""
        return f"{self.module_path} ({place})" if self.module_path and place else self.module_path or place


class Operation:
    """Base of operators: frozen attrs classes whose fields are integers, strings, tuples or numpy arrays.

    A plugin's operator also implements ``execute``; core's own are executed by ``ir.reference``.
    """

    kind: ClassVar[str]

    def infer_shape(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        """The output's shape. Raises ValueError when the inputs do not fit."""
        raise NotImplementedError(type(self).__name__)

    def execute(self, inputs: tuple[npt.NDArray[Any], ...]) -> npt.NDArray[Any]:
        """The operator's integer semantics in plain numpy; the result is cast to the node's type."""
        raise NotImplementedError(type(self).__name__)


@frozen
class Node:
    """One operator applied to named tensors; its output has the node's name and ``type``."""

    name: str
    op: Operation
    inputs: tuple[str, ...]
    type: TensorType
    source: Source = Source()


@frozen
class GraphInput:
    """A network input. ``preprocessing`` says in words and numbers how an image becomes it."""

    name: str
    type: TensorType
    preprocessing: str = ""


@frozen
class Graph:
    """An integer model."""

    name: str
    inputs: tuple[GraphInput, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    #: Facts about the model's origin: march, checkpoint, stage ... Not part of the digest.
    metadata: Mapping[str, str] = field(factory=dict)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def node(self, name: str) -> Node:
        """The node of a name."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise GraphError(f"graph {self.name!r} has no node {name!r}")

    def types(self) -> dict[str, TensorType]:
        """Every tensor's type by name."""
        types = {i.name: i.type for i in self.inputs}
        types.update((node.name, node.type) for node in self.nodes)
        return types

    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor, in execution order."""
        users: dict[str, list[Node]] = {name: [] for name in self.types()}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                users[name].append(node)
        return users

    def digest(self) -> str:
        """SHA-256 of everything that the arithmetic depends on (not of metadata and sources)."""
        # Imported here since the text form reads this module.
        from carkp_core.ir.text import digest_lines

        digest = hashlib.sha256()
        for line in digest_lines(self):
            digest.update(line)
        return digest.hexdigest()


def array_bytes(array: npt.NDArray[Any]) -> bytes:
    """An array's contents as little-endian bytes in C order."""
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
