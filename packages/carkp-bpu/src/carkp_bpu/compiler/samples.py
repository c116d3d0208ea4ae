"""Integer networks to compile: random ones for tests, known shapes for tests and benchmarks.

Weights are random; scales are chosen so that results fill the range without mostly saturating.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, Operation, Source, TensorType

Shape = tuple[int, ...]
IntArray = npt.NDArray[Any]

RANGES = {"int8": (-128, 127), "int16": (-32768, 32767)}


class NetworkBuilder:
    """Grows a network node by node; ``last`` is the node added last."""

    def __init__(self, shape: Shape, seed: int = 0, dtype: str = "int8") -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs = [GraphInput("img", TensorType(shape, dtype, 1 / 128))]
        self.nodes: list[Node] = []
        self.types = {"img": self.inputs[0].type}
        self.last = "img"

    def graph(self, *outputs: str, name: str = "sample") -> Graph:
        """The network; without names, the last node is the output."""
        return Graph(name, tuple(self.inputs), tuple(self.nodes), outputs or (self.last,))

    def input(self, name: str, shape: Shape, dtype: str = "int8") -> str:
        """A further input."""
        self.inputs.append(GraphInput(name, TensorType(shape, dtype, 1 / 64)))
        self.types[name] = self.inputs[-1].type
        return name

    def add(self, op: Operation, *inputs: str, dtype: str | None = None) -> str:
        """A node that reads ``inputs`` (the last node, if none are given)."""
        names = inputs or (() if isinstance(op, ops.Constant) else (self.last,))
        shape = op.infer_shape(tuple(self.types[name].shape for name in names))
        kind = dtype or (self.types[names[0]].dtype if names else "int8")
        name = f"{op.kind}{len(self.nodes)}"
        self.types[name] = TensorType(tuple(int(size) for size in shape), kind, 0.05)
        self.nodes.append(Node(name, op, names, self.types[name], Source(f"net.{name}", "net.py", len(self.nodes) + 1)))
        self.last = name
        return name

    def shape(self, name: str | None = None) -> Shape:
        """A tensor's shape."""
        return self.types[name or self.last].shape

    def conv(
        self,
        filters: int,
        kernel: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        *,
        groups: int = 1,
        source: str | None = None,
        residual: str | None = None,
        **others: Any,
    ) -> str:
        """A convolution, by default with "same" padding and a ReLU; ``others`` are fields of ``ops.Conv2d``."""
        name = source or self.last
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        weight = self._weights((filters, self.shape(name)[1] // groups, kh, kw))
        # int16 sums are kept inside int32 by small weights.
        if self.types[name].dtype == "int16":
            weight = np.clip(weight, -1, 1)
        dtype = others.pop("dtype", self.types[name].dtype)
        hi = RANGES[dtype][1]
        spread = 40 * math.sqrt(weight[0].size) * (40 if self.types[name].dtype == "int8" else 200)
        fields = {
            "stride_hw": stride if isinstance(stride, tuple) else (stride, stride),
            "padding_tlbr": ((kh - 1) // 2, (kw - 1) // 2, kh // 2, kw // 2),
            "lo": 0,
            "hi": hi,
            "residual": None if residual is None else self.term(1.0),
            **self._rescale(filters, hi / spread),
            **others,
        }
        op = ops.Conv2d(weight=weight, bias=self.rng.integers(-2000, 2000, filters), groups=groups, **fields)
        return self.add(op, name, *([residual] if residual else []), dtype=dtype)

    def deconv(self, filters: int, kernel: int = 4, stride: int = 2, **others: Any) -> str:
        """A transposed convolution; ``others`` are fields of ``ops.ConvTranspose2d``."""
        groups = others.pop("groups", 1)
        weight = self._weights((self.shape()[1], filters // groups, kernel, kernel))
        if self.types[self.last].dtype == "int16":
            weight = np.clip(weight, -1, 1)
        lo, hi = RANGES[self.types[self.last].dtype]
        fields = {
            "stride_hw": (stride, stride),
            "padding_tlbr": ((kernel - stride) // 2,) * 4,
            "lo": lo,
            "hi": hi,
            **self._rescale(filters, hi / (1600 * math.sqrt(weight.shape[0]))),
            **others,
        }
        return self.add(
            ops.ConvTranspose2d(weight=weight, bias=self.rng.integers(-900, 900, filters), groups=groups, **fields)
        )

    def add_tensors(self, *names: str, dtype: str | None = None) -> str:
        """A sum."""
        lo, hi = RANGES[dtype or self.types[names[0]].dtype]
        terms = tuple(self.term(1.0 / len(names), negative=bool(i % 2)) for i in range(len(names)))
        return self.add(ops.Add(terms, lo, hi), *names, dtype=dtype)

    def mul(self, left: str, right: str) -> str:
        """A product."""
        lo, hi = RANGES[self.types[left].dtype]
        multiplier, shift = self.ratio(1 / 64)
        return self.add(ops.Mul(multiplier, shift, lo, hi), left, right)

    def concat(self, axis: int, *names: str) -> str:
        """A concatenation with rescales."""
        lo, hi = RANGES[self.types[names[0]].dtype]
        return self.add(ops.Concat(tuple(self.term(0.8) for _ in names), axis, lo, hi), *names)

    def constant(self, shape: Shape, dtype: str = "int8") -> str:
        """A constant tensor of random integers."""
        lo, hi = RANGES[dtype]
        return self.add(ops.Constant(self.rng.integers(lo, hi + 1, shape).astype(dtype)), dtype=dtype)

    def table(self, per_channel: bool = False) -> str:
        """A random function: 256 entries for int8, 513 for int16."""
        if self.types[self.last].dtype == "int16":
            return self.add(ops.Table(self.rng.integers(-32768, 32768, 513).astype(np.int16), "noise"))
        shape = (self.shape()[1], 256) if per_channel else (256,)
        return self.add(ops.Table(self.rng.integers(-128, 128, shape).astype(np.int8), "noise"))

    def avg_pool(self, kernel: Shape, stride: Shape, padding: Shape = (0, 0, 0, 0), include: bool = True) -> str:
        """Average pooling; with ``include`` padded positions count."""
        _, _, height, width = self.shape()
        counted = (height + padding[0] + padding[2], width + padding[1] + padding[3])
        area = kernel[0] * kernel[1]
        multipliers, shifts = zip(*(self.ratio(1 / max(count, 1)) for count in range(area + 1)), strict=True)
        lo, hi = RANGES[self.types[self.last].dtype]
        return self.add(
            ops.AvgPool(
                kernel_hw=(kernel[0], kernel[1]),
                stride_hw=(stride[0], stride[1]),
                padding_tlbr=(padding[0], padding[1], padding[2], padding[3]),
                count_include_pad=include,
                counted_hw=counted,
                multiplier=np.array(multipliers),
                shift=np.array(shifts),
                lo=lo,
                hi=hi,
            )
        )

    def resize(self, mode: str, size: tuple[int, int]) -> str:
        """A resize of half-pixel centres to any size."""
        _, _, height, width = self.shape()
        numerators = (2 * size[0], 2 * size[1])
        denominators = (2 * height, 2 * width)
        offsets = (height - size[0], width - size[1])
        lo, hi = RANGES[self.types[self.last].dtype]
        multiplier, shift = self.ratio(1 / (numerators[0] * numerators[1])) if mode == "bilinear" else (1 << 30, 30)
        return self.add(ops.Resize(mode, size, numerators, denominators, offsets, multiplier, shift, lo, hi))

    def rescale(self, dtype: str) -> str:
        """The last tensor in another type."""
        ratio = 200.0 if dtype == "int16" else 1 / 200
        if dtype == self.types[self.last].dtype:
            ratio = 0.7
        multiplier, shift = self.ratio(ratio)
        return self.add(ops.Rescale(multiplier, shift, *RANGES[dtype]), dtype=dtype)

    def term(self, ratio: float, negative: bool = False) -> ops.Term:
        """A term of a sum of about this factor."""
        multiplier, shift = self.ratio(ratio)
        return ops.Term(multiplier, shift, negative)

    def ratio(self, value: float) -> tuple[int, int]:
        """Multiplier and shift of a factor, varied a little."""
        mantissa, exponent = math.frexp(value * float(self.rng.uniform(0.8, 1.2)))
        return min(int(mantissa * (1 << 31)), (1 << 31) - 1), 31 - exponent

    def _weights(self, shape: Shape) -> IntArray:
        return np.clip(np.rint(self.rng.normal(0, 40, shape)), -127, 127).astype(np.int8)

    def _rescale(self, count: int, ratio: float) -> dict[str, IntArray]:
        pairs = [self.ratio(ratio) for _ in range(count)]
        return {"multiplier": np.array([m for m, _ in pairs]), "shift": np.array([s for _, s in pairs])}


def efficientnet_keypoints(size: int = 128, keypoints: int = 12) -> Graph:
    """The shapes of the shipped network: EfficientNet-b0 without squeeze-excite, three deconvolutions, a head."""
    net = NetworkBuilder((1, 3, size, size))
    net.conv(32, 3, 2)
    stages = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    )  # fmt: skip
    for expand, filters, repeats, first_stride, kernel in stages:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            begin, channels = net.last, net.shape()[1]
            if expand > 1:
                net.conv(channels * expand)
            net.conv(net.shape()[1], kernel, stride, groups=net.shape()[1])
            keeps = stride == 1 and channels == filters
            net.conv(filters, lo=-128, residual=begin if keeps else None)
    for _ in range(3):
        net.deconv(128, lo=0)
    net.conv(keypoints, 3, lo=-128)
    return net.graph(name="efficientnet_keypoints")


def random_inputs(graph: Graph, frames: int, seed: int = 0) -> dict[str, IntArray]:
    """Random integers for every input."""
    rng = np.random.default_rng(seed)
    return {
        i.name: rng.integers(*RANGES[i.type.dtype], (frames, *i.type.shape[1:]), endpoint=True).astype(i.type.dtype)
        for i in graph.inputs
    }
