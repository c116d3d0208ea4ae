"""The state of a QDQ export: which name in the ONNX graph holds a tensor's integers, and which its floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from carkp_core.export.onnx_builder import OnnxBuilder
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.ir.graph import Graph, Node, TensorType
from carkp_core.ir.operators import Resize


class QdqWriter:
    """What has been written so far: each tensor's integers, and its floats once they are asked for."""

    def __init__(self, graph: Graph, builder: OnnxBuilder) -> None:
        self.builder = builder
        self.types = graph.types()
        #: Tensor -> name of its integers in the ONNX graph, and of its floats once they are asked for.
        self.integers: dict[str, str] = {}
        self._floats: dict[str, str] = {}

    def floats(self, tensor: str) -> str:
        """The dequantized tensor."""
        if tensor not in self._floats:
            scale = np.float32(self.types[tensor].scale)
            self._floats[tensor] = self.dequantize(self.integers[tensor], scale, f"{tensor}.float")
        return self._floats[tensor]

    def quantize(self, x: str, kind: TensorType, name: str) -> str:
        """Write the integers of a float tensor."""
        scale = self.builder.constant(np.float32(kind.scale), f"{name}.scale")
        zero = self.builder.constant(0, f"{name}.zero", kind.dtype)
        return self.builder.node("QuantizeLinear", [x, scale, zero], name)

    def dequantize(self, q: str, scale: Any, name: str, axis: int | None = None) -> str:
        """Write the floats of integers; with ``axis`` there is a scale for each of its indices."""
        return self.builder.node(
            "DequantizeLinear", [q, self.builder.constant(scale, f"{name}.scale")], name, axis=axis
        )

    def clipped(self, y: str, node: Node) -> str:
        """The clamp, where it is narrower than the type. A nearest resize moves elements and has none."""
        if isinstance(node.op, Resize) and node.op.mode == "nearest":
            return y
        lowest, highest = INT_RANGE[node.type.dtype]
        lo, hi = getattr(node.op, "lo", lowest), getattr(node.op, "hi", highest)
        if (lo, hi) == (lowest, highest):
            return y
        if (lo, hi) == (0, highest):
            return self.builder.node("Relu", [y], f"{node.name}.relu")
        scale = np.float32(node.type.scale)
        edges = [self.builder.constant(np.float32(e) * scale, f"{node.name}.{n}") for e, n in ((lo, "lo"), (hi, "hi"))]
        return self.builder.node("Clip", [y, *edges], f"{node.name}.clip")
