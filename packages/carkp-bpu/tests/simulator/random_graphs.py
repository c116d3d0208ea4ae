"""Random graphs over all operators, their inputs, and a plugin's operator, for the tests of every executor."""

from __future__ import annotations

import numpy as np

from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, Operation, TensorType

RANGES = {"int8": (-128, 127), "int16": (-32768, 32767)}


class Builder:
    """Grows a graph of random, mostly well scaled operators; extremes are mixed in on purpose."""

    def __init__(self, seed: int, shape: tuple[int, ...], dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.types = {"img": TensorType(shape, dtype, 0.5)}
        self.last = "img"

    def add(self, op: Operation, *inputs: str, dtype: str | None = None) -> str:
        inputs = () if isinstance(op, ops.Constant) else inputs or (self.last,)
        shape = op.infer_shape(tuple(self.types[name].shape for name in inputs))
        name = f"{op.kind}_{len(self.nodes)}"
        self.types[name] = TensorType(tuple(map(int, shape)), dtype or self.types[inputs[0]].dtype, 0.5)
        self.nodes.append(Node(name, op, tuple(inputs), self.types[name]))
        self.last = name
        return name

    def graph(self) -> Graph:
        image = GraphInput("img", self.types["img"])
        return Graph("random", (image,), tuple(self.nodes), (self.last,))

    def shape(self) -> tuple[int, ...]:
        return self.types[self.last].shape

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def rescale(self, count: int, magnitude: float) -> dict:
        """Multipliers that bring sums of about ``magnitude`` into range, one now and then far off."""
        multiplier = self.rng.integers(1 << 30, 1 << 31, count)
        bits = int(np.clip(np.log2(max(magnitude, 1.0)) + 24, 2, 62))
        shift = np.full(count, bits)
        shift[self.rng.random(count) < 0.1] = self.pick(2, 31, 62)
        multiplier[self.rng.random(count) < 0.05] = self.pick(0, 1, (1 << 31) - 1)
        return {"multiplier": multiplier, "shift": shift}

    def clamp(self, dtype: str) -> dict:
        lo, hi = RANGES[dtype]
        return {"lo": self.pick(lo, 0), "hi": self.pick(hi, hi // 3)}

    def term(self) -> ops.Term:
        shift = self.pick(29, 30, 31, 17, 62)
        return ops.Term(int(self.rng.integers(1 << 30, 1 << 31)), shift, bool(self.rng.integers(2)))

    def weight(self, *shape: int) -> np.ndarray:
        if self.rng.random() < 0.1:
            return np.full(shape, self.pick(-127, 127), dtype=np.int8)
        return self.rng.integers(-127, 128, shape, dtype=np.int8)

    def bias(self, count: int) -> np.ndarray:
        return self.rng.integers(-(1 << self.pick(4, 16, 30)), 1 << 16, count)

    # One method for each operator; each leaves its output as ``last``.

    def conv2d(self) -> None:
        _, channels, height, width = self.shape()
        group = self.pick(1, channels, *[d for d in (2, 3, 4) if channels % d == 0])
        out = channels if group == channels else group * int(self.rng.integers(1, 9))
        kernel = [int(self.rng.integers(1, min(4, size) + 1)) for size in (height, width)]
        sizes = zip(kernel, (height, width), strict=True)
        dilation = [self.pick(1, 2) if 2 * (k - 1) < size else 1 for k, size in sizes]
        dtype = self.types[self.last].dtype
        magnitude = np.prod(kernel) * channels / group * 64 * 40
        residual = self.term() if self.rng.random() < 0.3 else None
        rescale = self.rescale(out, magnitude)
        if residual is not None:
            rescale["shift"] = np.maximum(rescale["shift"], 17)
        op = ops.Conv2d(
            self.weight(out, channels // group, *kernel), self.bias(out), **rescale, **self.clamp(dtype),
            stride_hw=(self.pick(1, 2), self.pick(1, 2, 3)), dilation_hw=tuple(dilation), groups=group,
            padding_tlbr=tuple(int(p) for p in self.rng.integers(0, 3, 4)),
        )  # fmt: skip
        if residual is None:
            self.add(op)
            return
        source = self.last
        skip = self.add(op)
        fused = ops.Conv2d(**{**{f.name: getattr(op, f.name) for f in op.__attrs_attrs__}, "residual": residual})
        self.add(fused, source, skip)

    def conv_transpose2d(self) -> None:
        _, channels, height, width = self.shape()
        if height * width > 400:
            self.max_pool()
            return
        group = self.pick(1, *[d for d in (2, channels) if channels % d == 0])
        out = int(self.rng.integers(1, 6))
        kernel = [int(k) for k in self.rng.integers(2, 6, 2)]
        stride = (self.pick(1, 2, 3), self.pick(1, 2))
        most = [k // 2 if height > 1 and width > 1 else 0 for k in kernel * 2]
        padding = tuple(int(self.rng.integers(0, pad + 1)) for pad in most)
        op = ops.ConvTranspose2d(
            self.weight(channels, out, *kernel), self.bias(out * group),
            **self.rescale(out * group, 64 * 40 * channels), **self.clamp(self.types[self.last].dtype),
            stride_hw=stride, padding_tlbr=padding, groups=group,
            output_padding_hw=(self.pick(0, stride[0] - 1), self.pick(0, stride[1] - 1)),
        )  # fmt: skip
        if min(op.infer_shape((self.shape(),))) >= 1:
            self.add(op)

    def max_pool(self) -> None:
        _, _, height, width = self.shape()
        kernel = (min(height, self.pick(1, 2, 3)), min(width, self.pick(1, 2, 3)))
        self.add(ops.MaxPool(kernel, (self.pick(1, 2), self.pick(1, 2)), tuple(int(k // 2) for k in kernel * 2)))

    def avg_pool(self) -> None:
        _, _, height, width = self.shape()
        kernel = (min(height, self.pick(1, 2, 3, height)), min(width, self.pick(1, 2, 3, width)))
        padding = tuple(int(k // 2) for k in kernel * 2)
        counts = np.maximum(np.arange(kernel[0] * kernel[1] + 1), 1)
        multiplier = np.round((1 << 31) / counts / 2 ** np.ceil(np.log2((1 << 31) / counts) - 31)).astype(np.int64) // 2
        shift = 30 + np.ceil(np.log2(counts)).astype(np.int64)
        counted = (height + 2 * padding[0] - self.pick(0, padding[2]), width + 2 * padding[1])
        stride = (self.pick(1, 2), self.pick(1, 2))
        op = ops.AvgPool(kernel, stride, padding, bool(self.rng.integers(2)), counted, multiplier, shift,
                         *self.clamp(self.types[self.last].dtype).values())  # fmt: skip
        self.add(op)

    def resize(self) -> None:
        _, _, height, width = self.shape()
        factor = (self.pick(1, 2, 3), self.pick(1, 2))
        size = (height * factor[0], width * factor[1]) if height * width < 300 else (height, width)
        mode = self.pick("nearest", "bilinear")
        numerator = (2 * factor[0], 2 * factor[1])
        offset = (1 - factor[0], 1 - factor[1]) if mode == "bilinear" else (self.pick(0, 1 - factor[0]), -1)
        shift = 30 + int(np.log2(numerator[0] * numerator[1]))
        limits = RANGES[self.types[self.last].dtype]
        self.add(ops.Resize(mode, size, numerator, (2, 2), offset, 1 << 30, shift, *limits))

    def add_self(self) -> None:
        terms = tuple(self.term() for _ in range(self.pick(2, 2, 3)))
        self.add(ops.Add(terms, **self.clamp(self.types[self.last].dtype)), *[self.last] * len(terms))

    def add_constant(self) -> None:
        _, channels, height, width = self.shape()
        shape = self.pick((1, channels, 1, 1), (1, 1, 1, 1), (1, channels, height, width), (1, 1, height, 1))
        source, dtype = self.last, self.types[self.last].dtype
        constant = self.add(ops.Constant(self.rng.integers(-128, 128, shape).astype(dtype)), dtype=dtype)
        op = self.pick(ops.Add((self.term(), self.term()), *RANGES[dtype]), ops.Mul(1 << 30, 36, *RANGES[dtype]))
        self.add(op, source, constant)

    def gate(self) -> None:
        source, (_, _, height, width) = self.last, self.shape()
        counts = np.full(height * width + 1, 1 << 30), np.full(height * width + 1, 32)
        limits = RANGES[self.types[source].dtype]
        pooled = self.add(ops.AvgPool((height, width), (1, 1), (0, 0, 0, 0), True, (height, width), *counts, *limits))
        self.add(ops.Mul(1 << 30, 36, *limits), source, pooled)

    def concat(self) -> None:
        source = self.last
        self.add(ops.Clamp(-100, 1000))
        rescaled = self.add(ops.Rescale(1431655765, 31, *RANGES[self.types[source].dtype]))
        terms = (ops.Term(1 << 30, 30), self.term())
        self.add(ops.Concat(terms, self.pick(1, 2, 3), *RANGES[self.types[source].dtype]), source, rescaled)

    def slice(self) -> None:
        axis = self.pick(1, 2, 3)
        stop = self.shape()[axis]
        self.add(ops.Slice(axis, int(self.rng.integers(0, stop)), stop, self.pick(1, 2)))

    def pad(self) -> None:
        self.add(ops.Pad(tuple(int(p) for p in self.rng.integers(0, 3, 4)), self.pick(0, -7)))

    def shuffle(self) -> None:
        _, channels, height, width = self.shape()
        if channels % 2:
            return
        self.add(ops.Reshape((1, 2, channels // 2, height, width)))
        self.add(ops.Transpose((0, 2, 1, 3, 4)))
        self.add(ops.Reshape((1, channels, height, width)))

    def transpose(self) -> None:
        self.add(ops.Transpose(self.pick((0, 1, 3, 2), (0, 3, 1, 2))))

    def table(self) -> None:
        if self.types[self.last].dtype == "int16":
            self.add(ops.Table(self.rng.integers(-32768, 32768, 513).astype(np.int16)))
            return
        shape = self.pick((256,), (self.shape()[1], 256))
        self.add(ops.Table(self.rng.integers(-128, 128, shape).astype(np.int8)))

    def widen(self) -> None:
        dtype = self.pick("int8", "int16")
        narrowing = self.types[self.last].dtype == "int16" and dtype == "int8"
        self.add(ops.Rescale(1 << 30, 38 if narrowing else 30, *RANGES[dtype]), dtype=dtype)


STEPS = [name for name in vars(Builder) if not name.startswith("_")]
STEPS = STEPS[STEPS.index("conv2d") :]


def batch(graph: Graph, images: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for declared in graph.inputs:
        lo, hi = RANGES[declared.type.dtype]
        value = rng.integers(lo, hi + 1, (images, *declared.type.shape[1:])).astype(declared.type.dtype)
        value[rng.random(value.shape) < 0.1] = lo
        found[declared.name] = value
    return found


def small_network(size: int = 40) -> Graph:
    builder = Builder(7, (1, 3, size, size), "int8")
    for step in ("conv2d", "conv2d", "gate", "conv_transpose2d", "table", "conv2d", "add_self"):
        getattr(builder, step)()
    return builder.graph()


class Doubler(Operation):
    """A plugin's operator, known to nobody but itself."""

    kind = "doubler"

    def infer_shape(self, shapes):
        return shapes[0]

    def execute(self, inputs):
        return np.clip(inputs[0].astype(np.int64) * 2, -128, 127)
