from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import frozen

from carkp_bpu import backend as backend_module
from carkp_bpu.backend import BpuBackend
from carkp_bpu.expand import expand
from carkp_bpu.operator import BpuOperator
from carkp_core.backend import CompileOptions
from carkp_core.errors import PluginError
from carkp_core.ir import operators as ops
from carkp_core.ir import reference
from carkp_core.ir.graph import Graph, GraphInput, Node, Source, TensorType

INT8 = TensorType((1, 8, 6, 6), "int8", 0.1)


@frozen
class Relu(ops.Operation):
    """An operator of a plugin."""

    kind = "plugin_relu"

    def infer_shape(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        return shapes[0]

    def execute(self, inputs: tuple[Any, ...]) -> Any:
        return np.maximum(inputs[0], 0)


def graph() -> Graph:
    nodes = (
        Node("first", ops.Clamp(-100, 100), ("x",), INT8),
        Node("relu", Relu(), ("first",), INT8, Source("net.act", "net.py", 3)),
        Node("pool", ops.MaxPool((2, 2), (2, 2)), ("relu",), INT8.with_shape((1, 8, 3, 3))),
    )
    return Graph("g", (GraphInput("x", INT8),), nodes, ("pool", "relu"))


def in_two_steps(node: Node, types: dict[str, TensorType]) -> list[Node]:
    """Clamp from below, then from above."""
    inner = Node(f"{node.name}:low", ops.Clamp(0, 127), node.inputs, types[node.inputs[0]])
    return [inner, Node(node.name, ops.Clamp(-128, 127), (inner.name,), node.type)]


def misnamed(node: Node, types: dict[str, TensorType]) -> list[Node]:
    return [Node("other", ops.Clamp(0, 127), node.inputs, node.type)]


def itself(node: Node, types: dict[str, TensorType]) -> list[Node]:
    return [node]


def from_nowhere(node: Node, types: dict[str, TensorType]) -> list[Node]:
    return [Node(node.name, ops.Clamp(0, 127), ("nowhere",), node.type)]


def operator(function: Any) -> BpuOperator:
    return BpuOperator("plugin_relu", expand=f"{__name__}:{function.__name__}", provider="acme 1.0")


def test_a_node_becomes_nodes_at_its_place() -> None:
    made = expand(graph(), [operator(in_two_steps)])
    assert [node.name for node in made.nodes] == ["first", "relu:low", "relu", "pool"]
    assert {str(node.source) for node in made.nodes if node.name.startswith("relu")} == {"net.act (net.py:3)"}
    x = {"x": np.arange(-144, 144).clip(-128, 127).astype(np.int8).reshape(INT8.shape)}
    for name, values in reference.execute(graph(), x).items():
        np.testing.assert_array_equal(reference.execute(made, x)[name], values)


def test_a_graph_of_cores_operators_stays_itself() -> None:
    plain = graph()
    assert expand(plain, []) is plain
    assert expand(plain, [operator(in_two_steps)], only={"first"}).nodes == plain.nodes


@pytest.mark.parametrize(
    ("function", "seen"),
    [(misnamed, "another name"), (itself, "operator 'plugin_relu'"), (from_nowhere, "reads 'nowhere'")],
)
def test_a_broken_contract_names_the_function_and_its_package(function: Any, seen: str) -> None:
    with pytest.raises(PluginError, match=seen) as caught:
        expand(graph(), [operator(function)])
    assert f"{function.__name__}, of acme 1.0" in str(caught.value)
    assert "net.py:3" in str(caught.value)


@pytest.mark.parametrize("march", ["bernoulli2", "bayes", "nash-e"])
def test_the_program_is_the_operators_to_the_last_bit(march: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(backend_module, "_installed", lambda: (operator(in_two_steps),))
    backend, options = BpuBackend(), CompileOptions(march, "g", tmp_path / "g.hbm", tmp_path)
    result = backend.compile(graph(), options)
    assert result.check.ok
    assert backend.estimate(graph(), options).latency_ms == result.performance.latency_ms > 0
    program = backend.load_program(options.hbm)
    assert program.graph_digest == graph().digest()
    x = {"x": np.random.default_rng(0).integers(-128, 128, INT8.shape).astype(np.int8)}
    expected = reference.execute(graph(), x, ["first"])
    for got in (backend.run_program(program, x, ["first"]), backend.simulate(graph())(x, ["first"])):
        assert {name: int((got[name] != values).sum()) for name, values in expected.items()} == dict.fromkeys(
            expected, 0
        )


def test_a_refused_graph_is_still_estimated_with_the_operator_in_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(backend_module, "_installed", lambda: (operator(in_two_steps),))
    refused = Graph("g", graph().inputs, (*graph().nodes, Node("s", ops.Opaque("torch.softmax", INT8.shape), ("relu",),
                    TensorType(INT8.shape, "float32", 1.0))), ("s", "pool"))  # fmt: skip
    result = BpuBackend().compile(refused, CompileOptions("bayes", "g", tmp_path / "g.hbm", tmp_path))
    assert result.hbm is None
    assert result.performance.latency_ms > 0
    assert "relu:low" in (tmp_path / "perf.json").read_text()
