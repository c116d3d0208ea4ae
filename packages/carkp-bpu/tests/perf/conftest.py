"""Integer graphs and programs to estimate."""

from __future__ import annotations

import numpy as np
import pytest

from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, Source, TensorType


class Builder:
    """Appends nodes with zero weights; only shapes count here."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.last, self.nodes = name, "img", []
        self.input = GraphInput("img", TensorType(shape, "int8", 1 / 128))
        self.shapes = {"img": shape}

    def add(self, name: str, op: ops.Operation, inputs: tuple[str, ...] | None = None) -> str:
        """Append a node that reads ``inputs`` (the node before it, if None)."""
        inputs = inputs or (self.last,)
        shape = op.infer_shape(tuple(self.shapes[i] for i in inputs))
        source = Source(f"net.{name}", "net.py", len(self.nodes) + 10)
        self.nodes.append(Node(name, op, inputs, TensorType(shape, "int8", 0.05), source))
        self.shapes[name], self.last = shape, name
        return name

    def conv(
        self, name: str, filters: int, kernel: int = 1, stride: int = 1, depthwise: bool = False, add: str = ""
    ) -> str:
        """A convolution with "same" padding, with the tensor ``add`` fused into it."""
        channels = self.shapes[self.last][1]
        groups = channels if depthwise else 1
        pad = (kernel - stride + 1) // 2 if stride > 1 else kernel // 2
        tail = kernel - stride - pad if stride > 1 else kernel // 2
        op = ops.Conv2d(
            weight=np.zeros((filters, channels // groups, kernel, kernel)),
            bias=np.zeros(filters),
            multiplier=np.full(filters, 1 << 30),
            shift=np.full(filters, 40),
            lo=-128,
            hi=127,
            stride_hw=(stride, stride),
            padding_tlbr=(pad, pad, max(tail, 0), max(tail, 0)),
            groups=groups,
            residual=ops.Term(1 << 30, 40) if add else None,
        )
        return self.add(name, op, (self.last, add) if add else None)

    def deconv(self, name: str, filters: int) -> str:
        """A 4x4 transposed convolution with stride 2."""
        op = ops.ConvTranspose2d(
            weight=np.zeros((self.shapes[self.last][1], filters, 4, 4)),
            bias=np.zeros(filters),
            multiplier=np.full(filters, 1 << 30),
            shift=np.full(filters, 40),
            lo=0,
            hi=127,
            stride_hw=(2, 2),
            padding_tlbr=(1, 1, 1, 1),
        )
        return self.add(name, op)

    def graph(self) -> Graph:
        """What was built; the last node is the output."""
        return Graph(self.name, (self.input,), tuple(self.nodes), (self.last,))


STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


@pytest.fixture(scope="session")
def keypoint_graph() -> Graph:
    """The keypoint network of the tutorial, EfficientNet-b0 and three transposed convolutions, at 128x128."""
    net = Builder("keypoint_efficientnetb0_carfusion", (1, 3, 128, 128))
    net.conv("backbone_stem", 32, 3, 2)
    for stage, (expand, filters, repeats, first_stride, kernel) in enumerate(STAGES):
        for block in range(repeats):
            entry, stride = net.last, first_stride if block == 0 else 1
            prefix = f"backbone_stage{stage}_block{block}"
            channels = net.shapes[entry][1] * expand
            if expand > 1:
                net.conv(f"{prefix}_expand", channels)
            net.conv(f"{prefix}_depthwise", channels, kernel, stride, depthwise=True)
            net.conv(f"{prefix}_project", filters, add=entry if block else "")
    for index in range(3):
        net.deconv(f"head_deconv{index}", 128)
    net.conv("head_final", 12, 3)
    return net.graph()
