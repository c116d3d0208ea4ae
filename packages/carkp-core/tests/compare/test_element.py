"""Every rescaled element can be worked out again from its terms, for all operators of the IR."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.compare.element import accumulator, expected, parameter_differences, terms_of
from carkp_core.ir import operators as ops
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import finish_add, quantize, rescale, rescale_term
from carkp_core.ir.graph import Graph, Node, TensorType
from carkp_core.quant.convert import convert
from carkp_core.quant.prepare import prepare


class Net(nn.Module):
    """All operators that rescale, with broadcasting, padding and groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=(1, 0), groups=2)
        self.project = nn.Conv2d(8, 8, 1)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1, groups=2)
        self.gamma = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x = x - self.project(x)
        gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
        x = x * gate + self.gamma
        y = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        y = F.interpolate(y, size=(8, 8), mode="bilinear")
        x = torch.cat([y, F.max_pool2d(x, 3, 1, 1), x], 1)[:, ::3]
        return self.up(x), self.grouped(x)


def rescaled_again(node: Node, terms: Any) -> int:
    """The element from its terms, by ``ir.arithmetic``."""
    op: Any = node.op
    if isinstance(op, ops.Add) or getattr(op, "residual", None) is not None:
        total = sum(int(rescale_term(t.value, t.multiplier, t.shift)) * (-1 if t.negative else 1) for t in terms)
        return int(finish_add(np.asarray(total), op.lo, op.hi))
    (term,) = terms
    return int(rescale(term.value, term.multiplier, term.shift, op.lo, op.hi))


@pytest.fixture(scope="module")
def model() -> tuple[Graph, dict[str, Any]]:
    """An integer model and all its tensors for one image."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    network = prepare(Net().eval(), {"img": x[:1]}).eval()
    network.start_observing()
    network(x)
    network.finish_observing()
    graph = convert(network, "net")
    kind = graph.inputs[0].type
    inputs = {"img": quantize(x[:1].numpy(), kind.scale, kind.dtype)}
    return graph, {**inputs, **reference.execute(graph, inputs, [node.name for node in graph.nodes])}


def test_terms_explain_every_rescaled_element(model: tuple[Graph, dict[str, Any]]) -> None:
    graph, values = model
    rng = np.random.default_rng(0)
    explained = set()
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        for _ in range(12):
            index = tuple(int(rng.integers(size)) for size in node.type.shape[1:])
            value = int(values[node.name][(0, *index)])
            assert expected(node, inputs, index) == value
            terms = terms_of(node, inputs, index)
            if terms:
                explained.add(node.op.kind)
                assert rescaled_again(node, terms) == value, node.name
    assert explained == {"conv2d", "conv_transpose2d", "add", "mul", "concat", "avg_pool", "resize"}
    assert {node.op.kind for node in graph.nodes} - explained == {"table", "max_pool", "slice"}


def test_the_accumulator_is_the_reference_executors(model: tuple[Graph, dict[str, Any]]) -> None:
    graph, values = model
    for node in graph.nodes:
        if isinstance(node.op, ops.Conv2d):
            inputs = [values[name] for name in node.inputs]
            np.testing.assert_array_equal(accumulator(node, inputs), reference.conv2d_accumulator(node.op, inputs[0]))


def test_nearest_resize_and_unknown_operators_have_no_terms() -> None:
    kind = TensorType((1, 1, 4, 4), "int8", 0.1)
    nearest = Node("up", ops.Resize("nearest", (4, 4), (2, 2), (1, 1), (0, 0)), ("x",), kind)
    x = np.arange(4, dtype=np.int8).reshape(1, 1, 2, 2)
    assert terms_of(nearest, [x], (0, 0, 0)) == ()
    assert terms_of(Node("x", ops.Clamp(0, 5), ("y",), kind), [x], (0, 0, 0)) == ()


def test_int16_rescale() -> None:
    node = Node("small", ops.Rescale(1 << 30, 38, -128, 127), ("x",), TensorType((1, 2), "int8", 0.1))
    x = np.array([[-30000, 777]], dtype=np.int16)
    (term,) = terms_of(node, [x], (0,))
    assert (term.name, term.value, term.multiplier, term.shift) == ("accumulator", -30000, 1 << 30, 38)
    assert term.exact == -30000 / 256
    assert expected(node, [x], (0,)) == -117


def test_parameter_differences_name_the_field_and_the_place(model: tuple[Graph, dict[str, Any]]) -> None:
    graph, _ = model
    node = graph.node("grouped")
    op: Any = node.op
    assert parameter_differences(node, node) == []
    weight = op.weight.copy()
    weight[3, 1, 0, 2] ^= 1
    other = attrs.evolve(node, op=attrs.evolve(op, weight=weight, lo=5, bias=op.bias[:-1]))
    texts = parameter_differences(node, other)
    assert texts[0] == (
        f"weight: 1 of {weight.size} differ, first [3, 1, 0, 2]: {op.weight[3, 1, 0, 2]} and {weight[3, 1, 0, 2]}"
    )
    assert texts[1:] == ["bias: shape (8,) and (7,)", f"lo: {op.lo} and 5"]
    moved = attrs.evolve(node, op=ops.Clamp(0, 1), inputs=("stem",), type=attrs.evolve(node.type, scale=0.5))
    assert parameter_differences(node, moved) == [
        "operator: conv2d and clamp", f"inputs: {node.inputs[0]} and stem", f"scale: {node.type.scale} and 0.5",
    ]  # fmt: skip
