"""Small graphs for the checker, as plain functions behind one fixture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, Source, TensorType

Shape = tuple[int, ...]


def rescale(channels: int) -> dict[str, Any]:
    return {
        "bias": np.zeros(channels),
        "multiplier": np.full(channels, 1 << 30),
        "shift": np.full(channels, 40),
        "lo": -128,
    }


class Graphs:
    """Makers of graphs with one node of interest, called ``node``."""

    def one(self, op: ops.Operation, *shapes: Shape, dtype: str = "int8", out: str | None = None) -> Graph:
        """``op`` over inputs of these shapes; its output is the graph's."""
        inputs = tuple(GraphInput(f"x{i}", TensorType(s, dtype, 0.1)) for i, s in enumerate(shapes))
        made = TensorType(op.infer_shape(shapes), out or dtype, 0.1)
        node = Node("node", op, tuple(i.name for i in inputs), made, Source("net.layer", "net.py", 7))
        return Graph("g", inputs, (node,), ("node",))

    def conv(self, shape: Shape, filters: int, kernel: tuple[int, int] = (1, 1), **more: Any) -> Graph:
        """A convolution; ``dtype``, ``out`` and ``inner`` (a clamp reads it) beside the operator's fields."""
        dtype, out, inner = more.pop("dtype", "int8"), more.pop("out", None), more.pop("inner", False)
        hi = more.pop("hi", 127)
        weight = np.zeros((filters, shape[1] // more.get("groups", 1), *kernel))
        op = ops.Conv2d(weight=weight, hi=hi, **rescale(filters), **more)
        if op.residual is not None:
            plain = ops.Conv2d(weight=weight, hi=hi, **rescale(filters), **(more | {"residual": None}))
            return self.one(op, shape, plain.infer_shape((shape,)), dtype=dtype, out=out)
        graph = self.one(op, shape, dtype=dtype, out=out)
        return self.then(graph, ops.Clamp(0, 127)) if inner else graph

    def deconv(
        self, shape: Shape, filters: int, kernel: tuple[int, int], stride: tuple[int, int], **more: Any
    ) -> Graph:
        """A transposed convolution."""
        dtype = more.pop("dtype", "int8")
        weight = np.zeros((shape[1], filters, *kernel))
        op = ops.ConvTranspose2d(weight=weight, hi=127, stride_hw=stride, **rescale(filters), **more)
        return self.one(op, shape, dtype=dtype)

    def avg(self, shape: Shape, kernel: tuple[int, int], stride: tuple[int, int], **more: Any) -> Graph:
        """Average pooling."""
        padding, counted = more.pop("padding", (0, 0, 0, 0)), more.pop("counted", None)
        size = (shape[2] + padding[0] + padding[2], shape[3] + padding[1] + padding[3])
        entries = kernel[0] * kernel[1] + 1
        op = ops.AvgPool(
            kernel_hw=kernel,
            stride_hw=stride,
            padding_tlbr=padding,
            count_include_pad=more.pop("include", True),
            counted_hw=counted or size,
            multiplier=np.full(entries, 1 << 30),
            shift=np.full(entries, 33),
        )
        return self.one(op, shape, **more)

    def with_constant(self, op: ops.Operation, shape: Shape, *constants: Shape) -> Graph:
        """``op`` over an input and constants."""
        nodes = [
            Node(f"c{i}", ops.Constant(np.zeros(s, dtype=np.int8)), (), TensorType(s, "int8", 0.1))
            for i, s in enumerate(constants)
        ]
        names = ("x", *(node.name for node in nodes))
        made = TensorType(op.infer_shape((shape, *constants)), "int8", 0.1)
        graph_input = GraphInput("x", TensorType(shape, "int8", 0.1))
        return Graph("g", (graph_input,), (*nodes, Node("node", op, names, made)), ("node",))

    def then(self, graph: Graph, op: ops.Operation, name: str = "after") -> Graph:
        """Another node behind the graph's output."""
        before = graph.types()[graph.outputs[0]]
        made = TensorType(op.infer_shape((before.shape,)), "int8", 0.1)
        node = Node(name, op, graph.outputs, made)
        return Graph(graph.name, graph.inputs, (*graph.nodes, node), (name,))

    def resize(self, shape: Shape, mode: str, factor: tuple[int, int], **more: Any) -> Graph:
        """A resize by whole factors, on torch's grid; ``divide`` shrinks by those factors instead."""
        if more.pop("divide", False):
            size = (shape[2] // factor[0], shape[3] // factor[1])
            numerator, denominator = (2, 2), (2 * factor[0], 2 * factor[1])
        else:
            size = (shape[2] * factor[0], shape[3] * factor[1])
            numerator, denominator = (2 * factor[0], 2 * factor[1]), (2, 2)
        offset = tuple((d - n) // 2 for n, d in zip(numerator, denominator, strict=True))
        if mode == "nearest":
            offset = tuple(1 - n // 2 for n in numerator)
        op = ops.Resize(mode, more.pop("size", size), numerator, denominator, more.pop("offset", offset))
        return self.one(op, shape, **more)


@pytest.fixture
def make() -> Graphs:
    """Makers of graphs."""
    return Graphs()
