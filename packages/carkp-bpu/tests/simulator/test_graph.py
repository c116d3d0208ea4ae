"""The graph simulator equals the reference executor on random graphs, and refuses what it cannot run."""

from __future__ import annotations

import copy
import os
import pickle
import threading

import attrs
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carkp_bpu.simulator.graph import profile, simulate
from carkp_bpu.simulator.packing import has_instructions
from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, Operation, TensorType
from carkp_core.ir.reference import execute

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


def assert_same(graph: Graph, inputs: dict[str, np.ndarray], **options) -> None:
    names = [node.name for node in graph.nodes]
    expected = execute(graph, inputs, names)
    for taps in ((), names):
        found = simulate(graph, **options)(inputs, taps)
        for name, value in found.items():
            assert value.dtype == expected[name].dtype
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=6),
    shape=st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)),
    dtype=st.sampled_from(["int8", "int8", "int16"]),
    images=st.integers(1, 3),
)
def test_random_graphs_equal_the_reference(seed, steps, shape, dtype, images):
    builder = Builder(seed, shape, dtype)
    for step in steps:
        getattr(builder, step)()
    graph = builder.graph()
    assert_same(graph, batch(graph, images, seed), threads=2)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_every_operator_on_every_route(step, dtype):
    for seed in range(4):
        builder = Builder(seed, (1, 4, 7, 9), dtype)
        getattr(builder, step)()
        graph = builder.graph()
        for int8_multiply in (True, False):
            assert_same(graph, batch(graph, 2), threads=1, int8_multiply=int8_multiply, vectors=False)
        if has_instructions():
            assert_same(graph, batch(graph, 2), threads=1, vectors=True)


def small_network(size: int = 40) -> Graph:
    builder = Builder(7, (1, 3, size, size), "int8")
    for step in ("conv2d", "conv2d", "gate", "conv_transpose2d", "table", "conv2d", "add_self"):
        getattr(builder, step)()
    return builder.graph()


@pytest.mark.parametrize("images", [0, 1, 2, 17, 33])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_batch_on_any_threads(images, threads):
    graph = small_network(12)
    inputs = batch(graph, images)
    expected = execute(graph, batch(graph, max(images, 1)))
    found = simulate(graph, threads)(inputs)
    for name in graph.outputs:
        assert found[name].shape == (images, *graph.types()[name].shape[1:])
        if images:
            np.testing.assert_array_equal(found[name], expected[name])


def test_stages_of_different_parts_agree(monkeypatch):
    from carkp_bpu.simulator import plan

    graph = small_network()
    inputs = batch(graph, 11)
    expected = execute(graph, inputs)
    for part_bytes in (1, 10_000, 60_000):
        monkeypatch.setattr(plan, "PART_BYTES", part_bytes)
        np.testing.assert_array_equal(simulate(graph, 1)(inputs)[graph.outputs[0]], expected[graph.outputs[0]])


def test_many_callers_share_one_executor():
    graph = small_network(12)
    executor = simulate(graph, 2)
    jobs = [batch(graph, 1 + seed % 5, seed) for seed in range(12)]
    expected = [execute(graph, job)[graph.outputs[0]] for job in jobs]
    found: list = [None] * len(jobs)

    def run(index: int) -> None:
        found[index] = executor(jobs[index])[graph.outputs[0]]

    callers = [threading.Thread(target=run, args=(index,)) for index in range(len(jobs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for index in range(len(jobs)):
        np.testing.assert_array_equal(found[index], expected[index])


def test_a_lone_slice_runs_on_the_callers_thread():
    graph = small_network(12)
    executor = simulate(graph, 2, vectors=False)
    before = threading.active_count()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        executor(batch(graph, 1))
        assert threading.active_count() == before
    finally:
        torch.set_num_threads(threads)


def test_profiles_name_every_step():
    costs = profile(simulate(small_network(12), 1), repeats=1)
    graph = small_network(12)
    assert {cost.node for cost in costs} <= {node.name for node in graph.nodes}
    assert all(cost.seconds > 0 for cost in costs)
    assert any(cost.macs for cost in costs if cost.kind == "conv_transpose2d")


def test_copies_and_pickles_work_alike():
    graph = small_network(12)
    executor = simulate(graph, 2)
    inputs = batch(graph, 2)
    expected = executor(inputs)[graph.outputs[0]]
    for twin in (copy.deepcopy(executor), pickle.loads(pickle.dumps(executor))):
        assert twin.threads == 2
        np.testing.assert_array_equal(twin(inputs)[graph.outputs[0]], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_threads_of_its_own():
    graph = small_network(12)
    executor = simulate(graph, 2)
    inputs = batch(graph, 2)
    expected = executor(inputs)[graph.outputs[0]]
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(executor(inputs)[graph.outputs[0]], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_torch_keeps_its_threads():
    before = torch.get_num_threads()
    graph = small_network(12)
    simulate(graph, 2)(batch(graph, 4))
    assert torch.get_num_threads() == before


def test_results_are_the_callers_own():
    graph = small_network(12)
    executor = simulate(graph, 1)
    first = executor(batch(graph, 1))[graph.outputs[0]]
    kept = first.copy()
    executor(batch(graph, 1, seed=9))
    np.testing.assert_array_equal(first, kept)


def test_int32_results_equal_the_reference():
    """Accumulators as they are, products and sums of them, and an interpolated table with its fractional bits."""
    rng, channels = np.random.default_rng(3), 6
    image, wide = TensorType((1, channels, 5, 4), "int16", 1.0), TensorType((1, channels, 5, 4), "int32", 1.0)
    limits = (-(1 << 31), (1 << 31) - 1)
    weight = rng.integers(-128, 128, (channels, channels, 3, 3))
    bias, factor = rng.integers(-(1 << 30), 1 << 30, channels), (np.full(channels, 1 << 30), np.full(channels, 30))
    conv = ops.Conv2d(weight, bias, *factor, *limits, padding_tlbr=(1, 1, 1, 1))
    term = ops.Term(1 << 30, 30)
    nodes = (
        Node("table", ops.Table(rng.integers(-32768, 32768, 513).astype(np.int16), "", 0), ("x",), wide),
        Node("conv", conv, ("x",), wide),
        Node("product", ops.Mul(1, 17, *limits), ("table", "conv"), wide),
        Node("whole", ops.Mul(1, 0, *limits), ("table", "conv"), wide),
        Node("sum", ops.Add((term, attrs.evolve(term, negative=True)), *limits), ("product", "conv"), wide),
    )
    graph = Graph("wide", (GraphInput("x", image),), nodes, ("whole", "sum"))
    assert_same(graph, batch(graph, 3))


def test_sums_beyond_int32_are_exact():
    channels = 2048
    weight = np.full((4, channels, 3, 3), 127, dtype=np.int8)
    op = ops.Conv2d(weight, np.zeros(4), np.full(4, 1 << 30), np.full(4, 56), -32768, 32767)
    builder = Builder(0, (1, channels, 4, 4), "int16")
    builder.add(op)
    graph = builder.graph()
    inputs = {"img": np.full((1, channels, 4, 4), -32768, dtype=np.int16)}
    assert_same(graph, inputs, threads=1)


class Doubler(Operation):
    """A plugin's operator, known to nobody but itself."""

    kind = "doubler"

    def infer_shape(self, shapes):
        return shapes[0]

    def execute(self, inputs):
        return np.clip(inputs[0].astype(np.int64) * 2, -128, 127)


def test_a_plugins_operator_runs_by_its_own_definition():
    builder = Builder(0, (1, 3, 5, 5), "int8")
    builder.conv2d()
    name = builder.add(Doubler())
    graph = builder.graph()
    assert simulate(graph, 1).reference_nodes == (name,)
    assert_same(graph, batch(graph, 2), threads=1)


def test_a_plugins_kernel_runs_in_place_of_its_definition():
    builder = Builder(0, (1, 3, 5, 5), "int8")
    builder.conv2d()
    builder.add(Doubler())
    graph = builder.graph()
    met = []

    def kernel(op, inputs):
        met.append(type(op))
        return op.execute(inputs)

    found = simulate(graph, 1, kernels={"doubler": kernel})(batch(graph, 2))
    np.testing.assert_array_equal(found[graph.outputs[0]], execute(graph, batch(graph, 2))[graph.outputs[0]])
    assert met == [Doubler]


def test_core_operators_have_fast_kernels():
    for dtype in RANGES:
        builder = Builder(3, (1, 4, 8, 8), dtype)
        for step in STEPS:
            if step != "transpose":
                getattr(builder, step)()
        grouped = {n.name for n in builder.nodes if isinstance(n.op, ops.Conv2d) and n.op.groups > 1}
        assert set(simulate(builder.graph(), 1).reference_nodes) <= grouped


def test_wrong_inputs_and_taps_are_refused_at_the_door():
    graph = small_network(12)
    executor = simulate(graph, 1)
    with pytest.raises(GraphError, match="'img' is missing"):
        executor({})
    with pytest.raises(GraphError, match="no tensor 'nothing'"):
        executor(batch(graph, 1), ["nothing"])
    with pytest.raises(ValueError, match="at least 1"):
        simulate(graph, 0)


def test_opaque_operators_are_refused_by_name():
    builder = Builder(0, (1, 3, 5, 5), "int8")
    builder.add(ops.Opaque("torch.sort", (1, 3, 5, 5)))
    with pytest.raises(GraphError, match=r"torch\.sort has no integer form"):
        simulate(builder.graph())
