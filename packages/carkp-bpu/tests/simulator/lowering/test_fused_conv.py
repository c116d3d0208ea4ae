"""Convolutions on the vector kernels equal the reference, and are left where they could not be exact."""

from __future__ import annotations

import warnings

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.simulator.graph import simulate
from carkp_bpu.simulator.lowering import fused_conv
from carkp_bpu.simulator.packing import has_instructions
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.ir.reference import execute

needs_instructions = pytest.mark.skipif(not has_instructions(), reason="needs AVX-512 VNNI")


def rescale(rng, channels: int, products: int) -> dict:
    """The converter's kind of numbers: 24 significant bits, sums brought to about the range of int8."""
    multiplier = rng.integers(1 << 23, 1 << 24, channels) << 7
    shift = np.full(channels, 31 + int(np.log2(40 * products**0.5)) + 1)
    return {"bias": rng.integers(-5000, 5000, channels), "multiplier": multiplier, "shift": shift}


def graph_of(op, shape, *more) -> Graph:
    """One convolution, or one and its residual."""
    image = GraphInput("img", TensorType(shape, "int8", 0.5))
    out = tuple(map(int, op.infer_shape((shape, *(m.type.shape for m in more)))))
    node = Node("conv", op, ("img", *(m.name for m in more)), TensorType(out, "int8", 0.5))
    return Graph("one", (image, *more), (node,), ("conv",))


def assert_fused(graph: Graph, images: int = 2) -> None:
    rng = np.random.default_rng(images)
    inputs = {i.name: rng.integers(-128, 128, (images, *i.type.shape[1:])).astype(np.int8) for i in graph.inputs}
    inputs["img"][rng.random(inputs["img"].shape) < 0.2] = -128
    expected = execute(graph, inputs)["conv"]
    assert expected.std() > 1 or expected.size < 50
    np.testing.assert_array_equal(simulate(graph, 1, vectors=True)(inputs)["conv"], expected)


def conv(rng, shape, out_channels, kernel, stride, padding, dilation=1, groups=1) -> ops.Conv2d:
    depth = shape[1] // groups
    weight = rng.integers(-127, 128, (out_channels, depth, kernel, kernel)).astype(np.int8)
    return ops.Conv2d(
        weight=weight,
        stride_hw=(stride, stride),
        padding_tlbr=(padding, padding, padding, padding),
        dilation_hw=(dilation, dilation),
        groups=groups,
        lo=-100,
        hi=120,
        **rescale(rng, out_channels, depth * kernel * kernel),
    )


@needs_instructions
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    channels=st.sampled_from([1, 3, 4, 12, 16, 20, 33, 64]),
    out_channels=st.sampled_from([1, 7, 12, 16, 24, 40, 48, 64, 65, 100, 128]),
    size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    kernel=st.sampled_from([1, 2, 3]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
def test_convolutions(seed, channels, out_channels, size, kernel, stride, dilation):
    rng = np.random.default_rng(seed)
    shape = (1, channels, *size)
    assert_fused(graph_of(conv(rng, shape, out_channels, kernel, stride, kernel - 1, dilation), shape), 1 + seed % 3)


@needs_instructions
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    channels=st.sampled_from([2, 3, 15, 16, 17, 32, 47, 64, 80, 96, 112, 130, 240]),
    size=st.tuples(st.integers(3, 10), st.integers(3, 10)),
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
def test_depthwise_convolutions(seed, channels, size, kernel, stride, dilation):
    rng = np.random.default_rng(seed)
    shape = (1, channels, *size)
    op = conv(rng, shape, channels, kernel, stride, dilation * (kernel // 2) + kernel // 4 + 1, dilation, channels)
    assert_fused(graph_of(op, shape), 1 + seed % 3)


@needs_instructions
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("negative", [False, True])
def test_residuals_also_of_groups(groups, negative):
    rng = np.random.default_rng(3)
    shape, channels = (1, 32, 9, 7), 40
    op = conv(rng, shape, channels, 3, 1, 1, 1, groups)
    term = ops.Term(multiplier=1_400_000_000, shift=31, negative=negative)
    op = attrs.evolve(op, residual=term)
    residual = GraphInput("other", TensorType((1, channels, 9, 7), "int8", 0.5))
    executor = simulate(graph_of(op, shape, residual), 1, vectors=True)
    assert executor.reference_nodes == ()
    assert_fused(graph_of(op, shape, residual))


@needs_instructions
@pytest.mark.parametrize(("channels", "out_channels"), [(8, 16), (20, 48), (3, 12)])
def test_transposed_convolutions(channels, out_channels):
    rng = np.random.default_rng(1)
    weight = rng.integers(-127, 128, (channels, out_channels, 4, 4)).astype(np.int8)
    op = ops.ConvTranspose2d(
        weight=weight,
        stride_hw=(2, 2),
        padding_tlbr=(1, 1, 1, 1),
        lo=0,
        hi=127,
        **rescale(rng, out_channels, 4 * channels),
    )
    assert_fused(graph_of(op, (1, channels, 5, 6)))


@needs_instructions
def test_many_pixels_go_chunk_by_chunk():
    rng = np.random.default_rng(2)
    shape = (1, 40, 40, 50)
    assert_fused(graph_of(conv(rng, shape, 24, 3, 1, 1), shape), 3)


@needs_instructions
def test_sums_of_extreme_values():
    shape = (1, 64, 4, 4)
    for value in (-127, 127):
        op = conv(np.random.default_rng(0), shape, 16, 3, 1, 0)
        op = attrs.evolve(op, weight=np.full_like(op.weight, value))
        graph = graph_of(op, shape)
        for pixel in (-128, 127):
            inputs = {"img": np.full((1, *shape[1:]), pixel, dtype=np.int8)}
            found = simulate(graph, 1, vectors=True)(inputs)["conv"]
            np.testing.assert_array_equal(found, execute(graph, inputs)["conv"])


def test_rescaling_that_is_not_proven_is_left_to_the_integers():
    matrix = np.full((4, 3), 127, dtype=np.int8)
    multiplier, shift, bias = np.full(3, (1 << 31) - 1), np.full(3, 40), np.full(3, (1 << 31) - 1)
    part = fused_conv.Part(matrix, (multiplier, shift, bias), None, (0, 4))
    assert fused_conv.fuse_parts([part], (-128, 127), None, 0) is None
    taps = fused_conv.lower_depthwise(
        matrix, fused_conv.Rescale.of(multiplier, shift, bias), (2, 2, 1, 1, 1, 1, 0, 0), (-128, 127)
    )
    assert taps is None


@needs_instructions
def test_the_self_test_passes_here():
    assert all(fused_conv._self_test(a, w) for a in (-128, 127) for w in (-127, 127))


@pytest.mark.parametrize(("instructions", "reason"), [(True, "miscount"), (False, "no AVX-512 VNNI")])
def test_a_machine_without_vector_kernels_is_told_once(monkeypatch, instructions, reason):
    monkeypatch.setattr(fused_conv.packing, "has_instructions", lambda: instructions)
    monkeypatch.setattr(fused_conv, "_self_test", lambda activation, weight: activation > 0)
    fused_conv.vector_kernels_run.cache_clear()
    try:
        with pytest.warns(UserWarning, match=f"{reason}.*exact but slower"):
            assert not fused_conv.vector_kernels_run()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not fused_conv.vector_kernels_run()
    finally:
        fused_conv.vector_kernels_run.cache_clear()


@needs_instructions
def test_neighbouring_convolutions_become_one_call():
    rng = np.random.default_rng(0)
    shape = (1, 16, 6, 6)
    kinds = [conv(rng, shape, 16, 3, 1, 1), conv(rng, shape, 16, 3, 1, 1, 1, 16), conv(rng, shape, 16, 1, 1, 0)]
    type_, nodes, name = TensorType(shape, "int8", 0.5), [], "img"
    for number, op in enumerate([*kinds, ops.Clamp(-90, 90), *kinds[:2]]):
        nodes.append(Node(f"n{number}", op, (name,), type_))
        name = f"n{number}"
    graph = Graph("chain", (GraphInput("img", type_),), tuple(nodes), (name,))
    executor = simulate(graph, 1, vectors=True)
    inputs = {"img": rng.integers(-128, 128, shape).astype(np.int8)}
    np.testing.assert_array_equal(executor(inputs)[name], execute(graph, inputs)[name])
    (whole,) = executor._worker_here._program(1, frozenset([name]))
    rows = [len(call.rows) if isinstance(call, fused_conv.RowCall) else 0 for call in whole.calls]
    assert rows == [3, 0, 2]
    # A tensor that is asked for ends its call.
    tapped = executor(inputs, ["n1"])
    np.testing.assert_array_equal(tapped["n1"], execute(graph, inputs, ["n1"])["n1"])
    parts = executor._worker_here._program(1, frozenset([name, "n1"]))
    assert [step.node for step in parts] == ["n1", name]
