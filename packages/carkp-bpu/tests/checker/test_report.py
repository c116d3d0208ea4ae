from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from carkp_bpu.checker.report import check
from carkp_bpu.checker.rule import Site, rule
from carkp_bpu.march import MARCHES, find_march
from carkp_bpu.march.base import Fact
from carkp_bpu.operator import BpuOperator
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, Source, TensorType

MAP = (1, 8, 16, 16)
INT8 = TensorType(MAP, "int8", 0.1)


class Cube(ops.Operation):
    """An operator of a plugin."""

    kind = "cube"

    def infer_shape(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        return shapes[0]


@rule("cube", allowed="at most 16 rows", remedy="crop")
def cube_rows(site: Site) -> str | None:
    """A cube has at most 16 rows."""
    rows = site.inputs[0].shape[2]
    return f"{rows} rows" if rows > 16 else None


def as_clamp(node: Node, types: dict[str, TensorType]) -> list[Node]:
    return [Node(node.name, ops.Clamp(0, 127), node.inputs, node.type)]


def as_dilated_pool(node: Node, types: dict[str, TensorType]) -> list[Node]:
    return [Node(node.name, ops.MaxPool((2, 2), (1, 1), (1, 1, 1, 1), (2, 2)), node.inputs, node.type)]


RULES = (cube_rows,)
HERE = f"{__name__}:RULES"


def chain(*operations: ops.Operation, outputs: tuple[str, ...] = ()) -> Graph:
    nodes, last = [], "x"
    for index, op in enumerate(operations):
        nodes.append(Node(f"n{index}", op, (last,), INT8, Source(f"net.{index}", "net.py", index)))
        last = f"n{index}"
    return Graph("chain", (GraphInput("x", INT8),), tuple(nodes), outputs or (last,))


def softmax() -> ops.Opaque:
    return ops.Opaque("torch.nn.functional.softmax", MAP)


def test_a_fine_graph_is_one_segment() -> None:
    report = check(chain(ops.Clamp(0, 127), ops.Clamp(0, 100)), "bayes")
    assert report.ok
    assert report.segments == 1
    assert [(n.verdict, n.segment) for n in report.nodes] == [("NPU", 0), ("NPU", 0)]


def test_cpu_nodes_split_segments() -> None:
    report = check(chain(ops.Clamp(0, 127), softmax(), ops.Clamp(0, 1), softmax(), ops.Clamp(0, 2)), "bayes")
    assert [n.verdict for n in report.nodes] == ["NPU", "CPU", "NPU", "CPU", "NPU"]
    assert [n.segment for n in report.nodes] == [0, None, 1, None, 2]
    assert report.segments == 3
    assert not report.ok


def test_a_parallel_branch_shares_the_first_segment() -> None:
    nodes = (
        Node("cpu", softmax(), ("x",), INT8),
        Node("side", ops.Clamp(0, 1), ("x",), INT8),
        Node("join", ops.Add((ops.Term(1 << 30, 40),) * 2, -128, 127), ("cpu", "side"), INT8),
    )
    report = check(Graph("g", (GraphInput("x", INT8),), nodes, ("join",)), "bayes")
    assert {n.node: n.segment for n in report.nodes} == {"cpu": None, "side": 0, "join": 1}


def test_constants_make_no_segment_of_their_own() -> None:
    nodes = (
        Node("c", ops.Constant(np.zeros(MAP, dtype=np.int8)), (), INT8),
        Node("cpu", softmax(), ("x",), INT8),
        Node("mul", ops.Mul(1 << 30, 40, -128, 127), ("cpu", "c"), INT8),
    )
    report = check(Graph("g", (GraphInput("x", INT8),), nodes, ("mul",)), "bayes")
    assert report.segments == 1
    assert {n.node: n.segment for n in report.nodes} == {"c": 0, "cpu": None, "mul": 0}


def test_an_operator_that_no_runtime_has_is_rejected() -> None:
    report = check(chain(ops.Opaque("mypackage.fancy_warp", MAP)), "bayes")
    assert [n.verdict for n in report.nodes] == ["rejected"]
    assert [v.rule for v in report.violations] == ["integer_form"]


def test_the_output_of_a_cpu_node_may_be_float() -> None:
    floating = TensorType(MAP, "float32", 1.0)
    nodes = (Node("cpu", softmax(), ("x",), floating), Node("clamp", ops.Clamp(0, 1), ("cpu",), INT8))
    report = check(Graph("g", (GraphInput("x", INT8),), nodes, ("clamp",)), "bayes")
    assert [n.verdict for n in report.nodes] == ["CPU", "NPU"]


def test_every_violation_of_every_node_is_named_with_its_place(make: Any) -> None:
    report = check(make.conv((1, 4100, 20, 20), 8, (9, 9), dtype="int16", out="int8", hi=60), "bernoulli2")
    rules = [v.rule for v in report.violations]
    assert {"conv_kernel", "conv_channels", "conv_kernel_volume", "conv_relu6", "conv_input_type"} <= set(rules)
    assert all(v.node == "node" and v.source == "net.layer (net.py:7)" for v in report.violations)
    assert [n.verdict for n in report.nodes] == ["rejected"]


def test_the_machine_readable_form_is_complete(make: Any) -> None:
    payload = check(make.conv(MAP, 8, (8, 8)), "bernoulli2").to_json()
    assert payload["march"] == "bernoulli2"
    assert payload["ok"] is False
    assert payload["violations"] == [
        {
            "rule": "conv_kernel",
            "node": "node",
            "source": "net.layer (net.py:7)",
            "seen": "kernel 8x8",
            "allowed": "1..7 in each direction",
            "remedy": "stack smaller kernels",
        }
    ]


def test_an_operator_from_outside_needs_rules_for_the_bpu() -> None:
    graph = chain(Cube())
    assert [v.rule for v in check(graph, "bayes").violations] == ["operator_known"]
    assert check(graph, "bayes", [BpuOperator("cube", expand=f"{__name__}:as_clamp")]).ok


def test_an_operator_without_a_machine_form_is_left_to_the_cpu() -> None:
    report = check(chain(Cube()), "bayes", [BpuOperator("cube")])
    assert [v.rule for v in report.violations] == ["machine_form"]
    assert [n.verdict for n in report.nodes] == ["CPU"]


def test_what_an_operator_becomes_is_asked_too_in_the_operators_name() -> None:
    (violation,) = check(
        chain(Cube()), "bernoulli2", [BpuOperator("cube", expand=f"{__name__}:as_dilated_pool")]
    ).violations
    assert (violation.rule, violation.node, violation.source) == ("max_pool_dilation", "n0", "net.0 (net.py:0)")
    assert "the max_pool that cube becomes" in violation.seen


def test_rules_from_outside_are_asked_as_carkps_own() -> None:
    tall = TensorType((1, 8, 17, 16), "int8", 0.1)
    graph = Graph("g", (GraphInput("x", tall),), (Node("n", Cube(), ("x",), tall),), ("n",))
    report = check(graph, "bayes", [BpuOperator("cube", rules=HERE)])
    assert [(v.rule, v.seen, v.allowed) for v in report.violations] == [("cube_rows", "17 rows", "at most 16 rows")]
    assert [n.verdict for n in report.nodes] == ["CPU"]


def test_a_march_may_limit_inputs_and_outputs() -> None:
    march = find_march("nash-e")
    small = attrs.evolve(march, tensor=attrs.evolve(march.tensor, graph_ends=Fact(1, "a test")))
    graph = chain(ops.Clamp(0, 127), ops.Clamp(0, 100), outputs=("n0", "n1"))
    report = check(graph, small)
    assert [(v.rule, v.seen) for v in report.violations] == [("graph_ends", "1 inputs, 2 outputs")]
    assert not report.ok
    assert check(graph, march).ok


def test_every_march_runs_a_plain_network(make: Any) -> None:
    graph = make.then(make.conv((1, 3, 32, 32), 16, (3, 3), stride_hw=(2, 2)), ops.MaxPool((2, 2), (2, 2)))
    assert all(check(graph, march).ok for march in MARCHES)
