"""Each rule of the verifier has a graph it accepts and one it refuses."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, Operation, TensorType
from carkp_core.ir.verify import findings, verify

X = TensorType((1, 2, 4, 4), "int8", 0.5)


def conv(**changes: Any) -> ops.Conv2d:
    fields: dict[str, Any] = {
        "weight": np.full((3, 2, 1, 1), 7),
        "bias": np.zeros(3),
        "multiplier": np.full(3, 1 << 30),
        "shift": np.full(3, 40),
        "lo": -128,
        "hi": 127,
    }
    return ops.Conv2d(**(fields | changes))


def single(op: Operation, out: TensorType, x: TensorType = X) -> Graph:
    return Graph("g", (GraphInput("x", x),), (Node("y", op, ("x",), out),), ("y",))


def product(multiplier: int, shift: int) -> Graph:
    """An int32 tensor times itself."""
    node = Node("y", ops.Mul(multiplier, shift, -128, 127), ("x", "x"), X32)
    return Graph("g", (GraphInput("x", X32),), (node,), ("y",))


X16, X32 = attrs.evolve(X, dtype="int16"), attrs.evolve(X, dtype="int32")
#: Mode, size, numerators, denominators and offsets that double a 4x4 tensor.
DOUBLED = ("nearest", (8, 8), (2, 2), (1, 1), (0, 0))
POOLED = TensorType((1, 2, 2, 2), "int8", 0.5)
OUT = TensorType((1, 3, 4, 4), "int8", 0.25)
AVERAGE = ops.AvgPool((2, 2), (2, 2), (0, 0, 0, 0), True, (4, 4), np.full(5, 1 << 30), np.full(5, 32))

SOUND = {
    "conv": single(conv(), OUT),
    "average": single(AVERAGE, POOLED),
    "table": single(ops.Table(np.zeros(256, np.int8)), X),
    "per channel table": single(ops.Table(np.zeros((2, 256), np.int8)), X),
    "int16 table": single(ops.Table(np.zeros(513, np.int16)), X16, X16),
    "int16 table with its fractional bits": single(ops.Table(np.zeros(513, np.int16), "", 0), X32, X16),
    "product of int32": product(1, 0),
    "resize with its border": single(ops.Resize(*DOUBLED, border_hw=(1, 1)), attrs.evolve(X, shape=(1, 2, 8, 8))),
    "clamp": single(ops.Clamp(0, 127), X),
    "opaque": single(ops.Opaque("torch.sort", (1, 2, 4, 4)), X),
}

BROKEN = {
    "type": single(conv(), attrs.evolve(OUT, scale=0.0)),
    "shape": single(conv(), attrs.evolve(OUT, shape=(1, 3, 5, 5))),
    "clamp": single(conv(hi=128), OUT),
    "rescale": single(conv(shift=np.full(3, 63)), OUT),
    "weight": single(conv(weight=np.full((3, 2, 1, 1), -128)), OUT),
    "accumulator": single(conv(bias=np.full(3, (1 << 31) - 1)), OUT),
    "table": single(ops.Table(np.zeros(255, np.int8)), X),
    "average": single(attrs.evolve(AVERAGE, multiplier=np.full(4, 1 << 30), shift=np.full(4, 32)), POOLED),
    "same steps": single(ops.Clamp(0, 127), attrs.evolve(X, scale=0.25)),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_graphs_pass(name: str) -> None:
    assert list(findings(SOUND[name])) == []


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_named_when_broken(rule: str) -> None:
    assert {finding.rule for finding in findings(BROKEN[rule])} == {rule}
    with pytest.raises(GraphError, match=rule):
        verify(BROKEN[rule])


def test_a_product_of_int32_stays_inside_int64() -> None:
    for multiplier, shift in ((2, 2), (1, 63), (1, -1)):
        (finding,) = findings(product(multiplier, shift))
        assert finding.rule == "rescale"
        assert "product of int32" in finding.seen


def test_a_border_that_makes_another_size_is_refused() -> None:
    graph = single(ops.Resize(*DOUBLED, border_hw=(0, 1)), attrs.evolve(X, shape=(1, 2, 8, 8)))
    (finding,) = findings(graph)
    assert finding.rule == "shape"
    assert "border" in finding.seen


def test_fractional_bits_of_a_table_decide_its_type() -> None:
    kept = single(ops.Table(np.zeros(513, np.int16), "", 0), X16, X16)
    some = single(ops.Table(np.zeros(513, np.int16), "", 3), X16, X16)
    assert ["entries" in finding.seen for finding in findings(kept)] == [True]
    assert ["fractional bits" in finding.seen for finding in findings(some)] == [True]


def test_topology() -> None:
    node = Node("y", ops.Clamp(0, 1), ("z",), X)
    graph = Graph("g", (GraphInput("x", X),), (node, attrs.evolve(node, inputs=("x",))), ("q",))
    assert [finding.rule for finding in findings(graph)] == ["order", "names", "outputs"]


def test_accumulator_counts_the_extreme_input_and_the_bias() -> None:
    """128 * 7 * 2 = 1792 on one side, 1778 on the other: the bias may use the rest of int32."""
    room = (1 << 31) - 1 - 1792 + 14
    assert list(findings(single(conv(bias=np.full(3, room)), OUT))) == []
    assert list(findings(single(conv(bias=np.full(3, room + 1)), OUT))) != []


def test_terms_of_an_add_have_shifts_larger_by_15() -> None:
    two = (GraphInput("x", X), GraphInput("r", X))
    for shift, sound in ((16, False), (17, True), (77, True), (78, False)):
        op = ops.Add((ops.Term(1 << 30, shift), ops.Term(1 << 30, 40)), -128, 127)
        graph = Graph("g", two, (Node("y", op, ("x", "r"), X),), ("y",))
        assert (list(findings(graph)) == []) is sound
