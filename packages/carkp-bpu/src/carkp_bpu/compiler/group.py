"""Integer graph -> layers: what each node becomes on the machine, and which tensors share storage.

Before::

    conv -> reshape (1, 8, 4, 4) -> (1, 8, 16) -> concat -> reshape (1, 24, 16) -> (1, 384) -> conv

After::

    conv -> concat -> transpose -> conv            reshape 1 is another name for conv's output, reshape 2 moves data:
                                                   a transpose into the model's own order, then another name for that

A fused activation or residual is part of its convolution already. Constants are tensors in DDR from the start.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_bpu.compiler.lowering import convolution, elementwise, movement, windows
from carkp_bpu.compiler.lowering.base import Lowering
from carkp_bpu.compiler.maps import TensorMap
from carkp_bpu.hbm.debug import LayerInfo
from carkp_core.errors import BackendError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, Node, TensorType

Shape = tuple[int, ...]


@frozen(eq=False)
class Layer:
    """A step of the network: its lowering, the tensors it reads and the one it makes."""

    info: LayerInfo
    lowering: Lowering
    inputs: tuple[str, ...]
    output: str


@frozen(eq=False)
class Model:
    """The network as layers.

    ``maps`` has every tensor, other names included; ``roots`` says whose storage a name uses. ``ddr_only`` are
    roots that a name reads in an order that only the dense form in DDR has.
    """

    graph: Graph
    layers: tuple[Layer, ...]
    maps: dict[str, TensorMap]
    roots: dict[str, str]
    constants: dict[str, npt.NDArray[Any]] = field(repr=False)
    ddr_only: frozenset[str] = frozenset()

    def root(self, name: str) -> str:
        """The tensor whose storage a name uses."""
        return self.roots.get(name, name)

    def one_row_order(self, root: str) -> bool:
        """Whether all names of a storage number its rows alike."""
        heights = {self.maps[name].height for name in self.maps if self.root(name) == root}
        return len(heights) == 1


def group(graph: Graph) -> Model:
    """The layers of a graph. Raises BackendError for a node that the machine has no instruction for."""
    builder = _Builder(graph)
    for node in graph.nodes:
        builder.add(node)
    return builder.model()


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._layers: list[Layer] = []
        self._maps = {i.name: TensorMap(i.type.shape, i.type.dtype) for i in graph.inputs}
        self._roots: dict[str, str] = {}
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._ddr_only: set[str] = set()

    def model(self) -> Model:
        return Model(
            self._graph,
            tuple(self._layers),
            self._maps,
            self._roots,
            self._constants,
            frozenset(self._roots.get(name, name) for name in self._ddr_only),
        )

    def add(self, node: Node) -> None:
        """Turn one node into layers, a constant, or another name."""
        op, inputs, made = node.op, node.inputs, _map(node.type)
        if made.dtype not in ("int8", "int16", "int32"):
            raise _unsupported(node, f"a {made.dtype} result")
        match op:
            case ops.Constant():
                self._constants[node.name] = op.value.astype(node.type.dtype)
                self._maps[node.name] = made
            case ops.Reshape():
                self._reshape(node)
            case ops.Transpose(permutation=permutation):
                self._move(node, movement.transpose_axes(permutation), inputs[0], node.name, made)
            case ops.Slice(axis=axis, start=start, step=step):
                axes = movement.slice_axes(len(made.shape), axis, start, step)
                self._move(node, axes, inputs[0], node.name, made)
            case ops.Concat():
                self._concat(node)
            case ops.Add() | ops.Mul():
                sources = tuple(self._fitting(node, name, made.shape) for name in inputs)
                self._layer(node, elementwise.Elementwise(op, self._types(sources), made), sources, node.name)
            case _:
                self._layer(node, self._lowering(node, made), inputs, node.name)

    def _lowering(self, node: Node, made: TensorMap) -> Lowering:
        op, sources = node.op, self._types(node.inputs)
        try:
            match op:
                case ops.Conv2d():
                    return convolution.Convolution(op, sources, made)
                case ops.ConvTranspose2d():
                    return convolution.TransposedConvolution(op, sources, made)
                case ops.MaxPool() | ops.AvgPool():
                    return windows.Pooling(op, sources, made)
                case ops.Resize():
                    return windows.Resizing(op, sources, made)
                case ops.Rescale() | ops.Clamp():
                    return elementwise.Elementwise(op, sources, made)
                case ops.Table():
                    return elementwise.LookUp(op, sources, made)
                case ops.Pad():
                    return elementwise.Padding(op, sources, made)
        except BackendError as error:
            error.where = _place(node)
            raise
        raise _unsupported(node, f"operator {op.kind}")

    def _layer(self, node: Node, lowering: Lowering, inputs: tuple[str, ...], name: str) -> None:
        info = LayerInfo(node.name, node.op.kind, str(node.source))
        self._layers.append(Layer(info, lowering, inputs, name))
        self._maps[name] = lowering.output

    def _move(self, node: Node, axes: tuple[movement.Axis, ...], source: str, name: str, made: TensorMap) -> None:
        self._layer(node, movement.Movement(axes, (self._maps[source],), made), (source,), name)

    def _alias(self, name: str, of: str, made: TensorMap, dense: bool) -> None:
        self._maps[name] = made
        self._roots[name] = self._roots.get(of, of)
        if dense:
            self._ddr_only.add(of)

    def _reshape(self, node: Node) -> None:
        """Another name where channels stay innermost as they are; else by way of the model's own order."""
        source, made = self._maps[node.inputs[0]], _map(node.type)
        old, new = source.shape, made.shape
        if old[1:2] == new[1:2]:
            self._alias(node.name, node.inputs[0], made, dense=False)
            return
        linear = node.inputs[0]
        if len(old) > 2:
            linear = f"{node.name}:linear"
            self._to_linear(node, node.inputs[0], linear)
        if len(new) <= 2:
            self._alias(node.name, linear, made, dense=True)
            return
        rank = len(new)
        read = (1, new[-1], *new[1:-1])
        reordered = f"{node.name}:reordered"
        self._alias(reordered, linear, TensorMap(read, made.dtype), dense=True)
        # Dimension d of the result is dimension d + 1 of what was read, its last is the channels.
        self._move(node, movement.transpose_axes((0, *range(2, rank), 1)), reordered, node.name, made)

    def _to_linear(self, node: Node, source: str, name: str) -> None:
        """Store a tensor so that its dense bytes are in the model's order: last dimension innermost."""
        made, rank = self._maps[source], len(self._maps[source].shape)
        shape = (1, made.shape[-1], *made.shape[1:-1])
        axes = movement.transpose_axes((0, rank - 1, *range(1, rank - 1)))
        self._move(node, axes, source, name, TensorMap(shape, made.dtype))

    def _concat(self, node: Node) -> None:
        op = node.op
        assert isinstance(op, ops.Concat)
        rank, made = len(node.type.shape), _map(node.type)
        if 2 < op.axis < rank - 1:
            self._concat_inside(node, op.axis, rank)
            return
        axis = 2 if op.axis == 1 else 1 if op.axis == rank - 1 else 0
        self._layer(node, elementwise.Concatenation(op, self._types(node.inputs), made, axis), node.inputs, node.name)

    def _concat_inside(self, node: Node, axis: int, rank: int) -> None:
        """Along a dimension inside the rows: brought to the front of the rows, joined there, and brought back."""
        forth = (0, 1, axis, *(d for d in range(2, rank) if d != axis))
        back = tuple(forth.index(d) for d in range(rank))
        moved = []
        for index, name in enumerate(node.inputs):
            shape = tuple(self._maps[name].shape[d] for d in forth)
            moved.append(f"{node.name}:{index}:turned")
            turned = TensorMap(shape, self._maps[name].dtype)
            self._move(node, movement.transpose_axes(forth), name, moved[-1], turned)
        made = _map(node.type)
        joined = TensorMap(tuple(made.shape[d] for d in forth), made.dtype)
        op = node.op
        assert isinstance(op, ops.Concat)
        self._layer(
            node,
            elementwise.Concatenation(op, self._types(tuple(moved)), joined, 0),
            tuple(moved),
            f"{node.name}:joined",
        )
        self._move(node, movement.transpose_axes(back), f"{node.name}:joined", node.name, made)

    def _fitting(self, node: Node, name: str, shape: Shape) -> str:
        """A tensor whose map broadcasts to the result's axis by axis; expanded or reshaped if it has to be."""
        have = self._maps[name].shape
        if len(have) != len(shape):
            if name not in self._constants:
                raise _unsupported(node, f"operands of {len(have)} and {len(shape)} dimensions")
            padded = (1,) * (len(shape) - len(have)) + have
            name = self._constant(f"{node.name}:{name}", self._constants[name].reshape(padded))
            have = padded
        middle = list(zip(have[2:-1], shape[2:-1], strict=True))
        if all(a == b for a, b in middle) or all(a == 1 for a, _ in middle):
            return name
        expanded = f"{node.name}:{name}:expanded"
        target = (1, have[1], *shape[2:-1], have[-1])
        made = TensorMap(target, self._maps[name].dtype)
        self._move(node, movement.expand_axes(have, target), name, expanded, made)
        return expanded

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self._constants[name] = value
        self._maps[name] = TensorMap(value.shape, str(value.dtype))
        return name

    def _types(self, names: tuple[str, ...]) -> tuple[TensorMap, ...]:
        return tuple(self._maps[name] for name in names)


def dense_bytes(value: npt.NDArray[Any]) -> bytes:
    """A tensor (1, C, d2, ..., dk) as the machine stores it in DDR: channels innermost."""
    ordered = np.moveaxis(value, 1, -1) if value.ndim > 1 else value
    return np.ascontiguousarray(ordered).astype(value.dtype.newbyteorder("<")).tobytes()


def _map(tensor: TensorType) -> TensorMap:
    return TensorMap(tensor.shape, tensor.dtype)


def _place(node: Node) -> str:
    return f"node {node.name}" + (f" of {node.source}" if str(node.source) else "")


def _unsupported(node: Node, seen: str) -> BackendError:
    return BackendError(
        "the machine has no instruction for this node",
        where=_place(node),
        seen=seen,
        remedy="run carkp model-checker and change the layer it names",
    )
