"""The reference executor against torch in float64 (exact for these sizes) and against loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir import reference
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType


def per_channel(channels: int) -> dict[str, np.ndarray]:
    return {"multiplier": np.full(channels, 1 << 30), "shift": np.full(channels, 40)}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_convolution_equals_torch(data: st.DataObject) -> None:
    groups, inside, outside = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel, stride, dilation = (tuple(data.draw(st.integers(1, 3)) for _ in range(2)) for _ in range(3))
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(4))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    weight = rng.integers(-127, 128, (groups * outside, inside, *kernel)).astype(np.int8)
    bias = rng.integers(-1000, 1000, groups * outside).astype(np.int32)
    x = rng.integers(-128, 128, (2, groups * inside, 9, 8)).astype(np.int8)
    op = ops.Conv2d(
        weight, bias, lo=-128, hi=127, stride_hw=stride, padding_tlbr=padding, dilation_hw=dilation, groups=groups,
        **per_channel(groups * outside),
    )  # fmt: skip
    top, left, bottom, right = padding
    padded = torch.nn.functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    expected = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight).double(), torch.from_numpy(bias).double(), stride, 0, dilation, groups
    )
    assert np.array_equal(reference.conv2d_accumulator(op, x), expected.numpy())


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_transposed_convolution_equals_torch(data: st.DataObject) -> None:
    groups, inside, outside = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel = tuple(data.draw(st.integers(2, 4)) for _ in range(2))
    stride = tuple(data.draw(st.integers(1, 3)) for _ in range(2))
    padding = tuple(data.draw(st.integers(0, (k - 1) // 2)) for k in kernel)
    extra = tuple(data.draw(st.integers(0, s - 1)) for s in stride)
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    weight = rng.integers(-127, 128, (groups * inside, outside, *kernel)).astype(np.int8)
    bias = rng.integers(-1000, 1000, groups * outside).astype(np.int32)
    x = rng.integers(-128, 128, (2, groups * inside, 5, 6)).astype(np.int8)
    op = ops.ConvTranspose2d(
        weight, bias, lo=-128, hi=127, stride_hw=stride, padding_tlbr=(*padding, *padding), output_padding_hw=extra,
        groups=groups, **per_channel(groups * outside),
    )  # fmt: skip
    expected = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(x).double(), torch.from_numpy(weight).double(), torch.from_numpy(bias).double(),
        stride, padding, extra, groups,
    )  # fmt: skip
    assert np.array_equal(reference.conv_transpose2d_accumulator(op, x), expected.numpy())


@pytest.mark.parametrize("include", [True, False])
def test_average_pooling_equals_a_loop(include: bool) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (1, 2, 5, 7)).astype(np.int8)
    multiplier, shift = np.arange(7) * (1 << 27) + (1 << 30), np.full(7, 33)
    op = ops.AvgPool((2, 3), (2, 2), (1, 1, 0, 1), include, (6, 9), multiplier, shift)
    got = reference.execute_node(Node("y", op, ("x",), TensorType((1, 2, 3, 4), "int8", 1.0)), (x,))
    for c, y, column in itertools.product(range(2), range(3), range(4)):
        total = count = 0
        for i, j in itertools.product(range(2), range(3)):
            row, at = 2 * y + i - 1, 2 * column + j - 1
            inside = 0 <= row < 5 and 0 <= at < 7
            total += int(x[0, c, row, at]) if inside else 0
            count += 1 if include else inside
        expected = (total * int(multiplier[count]) + (1 << 32)) >> 33
        assert got[0, c, y, column] == np.clip(expected, -128, 127)


def test_an_opaque_node_cannot_be_executed() -> None:
    kind = TensorType((1, 2), "int8", 1.0)
    graph = Graph("g", (GraphInput("x", kind),), (Node("y", ops.Opaque("torch.sort", (1, 2)), ("x",), kind),), ("y",))
    with pytest.raises(GraphError, match=r"torch\.sort has no integer form"):
        reference.execute(graph, {"x": np.zeros((1, 2), np.int8)})


def test_inputs_are_checked() -> None:
    kind = TensorType((1, 2), "int8", 1.0)
    graph = Graph("g", (GraphInput("x", kind),), (Node("y", ops.Clamp(0, 9), ("x",), kind),), ("y",))
    with pytest.raises(GraphError, match="missing"):
        reference.execute(graph, {})
    with pytest.raises(GraphError, match="another shape"):
        reference.execute(graph, {"x": np.zeros((1, 3), np.int8)})


def test_a_transposed_convolution_without_output_is_refused() -> None:
    op = ops.ConvTranspose2d(
        np.ones((1, 1, 2, 2)), np.zeros(1), lo=-128, hi=127, padding_tlbr=(3, 0, 3, 0), **per_channel(1)
    )
    with pytest.raises(ValueError, match="takes all of it"):
        op.infer_shape(((1, 1, 4, 4),))
