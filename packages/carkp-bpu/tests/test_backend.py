"""The BPU backend from end to end: check, simulate, compile, load, run; and what happens with findings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from carkp_bpu.backend import BpuBackend
from carkp_bpu.plugin import MARCHES
from carkp_core.backend import CompileOptions
from carkp_core.context import Context
from carkp_core.errors import BackendError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.ir.reference import execute
from carkp_core.plugins import plugin_manager
from carkp_core.quant.converters import integer_network

BPU = BpuBackend()


def network(opaque: bool = False) -> Graph:
    """Two convolutions with a residual add, a transposed one; optionally with an operator no NPU knows between."""
    rng = np.random.default_rng(0)
    types = {"img": TensorType((1, 3, 16, 16), "int8", 1 / 128)}
    nodes: list[Node] = []

    def add(name: str, op, *inputs: str) -> None:
        shape = op.infer_shape(tuple(types[i].shape for i in inputs))
        types[name] = TensorType(tuple(shape), "int8", 0.05)
        nodes.append(Node(name, op, inputs, types[name]))

    def numbers(count: int, shift: int) -> tuple:
        return rng.integers(-999, 999, count), rng.integers(1 << 30, 1 << 31, count), np.full(count, shift)

    stem = rng.integers(-127, 128, (8, 3, 3, 3))
    add("stem", ops.Conv2d(stem, *numbers(8, 39), 0, 127, (2, 2), (1, 1, 1, 1)), "img")
    add("wide", ops.Conv2d(rng.integers(-127, 128, (8, 1, 3, 3)), *numbers(8, 39), 0, 127, (1, 1), (1, 1, 1, 1),
                           groups=8), "stem")  # fmt: skip
    if opaque:
        add("strange", ops.Opaque("torch.sort", (1, 8, 8, 8)), "wide")
    narrow = ops.Conv2d(rng.integers(-127, 128, (8, 8, 1, 1)), *numbers(8, 39), -128, 127,
                        residual=ops.Term(1 << 30, 31))  # fmt: skip
    add("narrow", narrow, "strange" if opaque else "wide", "stem")
    up = rng.integers(-127, 128, (8, 4, 4, 4))
    add("up", ops.ConvTranspose2d(up, *numbers(4, 39), -128, 127, (2, 2), (1, 1, 1, 1)), "narrow")
    return Graph("network", (GraphInput("img", types["img"]),), tuple(nodes), ("up",))


def options(folder: Path, march: str = "bayes", **changes) -> CompileOptions:
    return CompileOptions(march=march, name="net", hbm=folder / "model.hbm", out_dir=folder, **changes)


def images(count: int = 3) -> dict[str, np.ndarray]:
    return {"img": np.random.default_rng(1).integers(-128, 128, (count, 3, 16, 16), dtype=np.int8)}


@pytest.mark.parametrize("march", MARCHES)
def test_reference_simulator_and_program_agree_on_every_march(march, tmp_path):
    graph = network()
    result = BPU.compile(graph, options(tmp_path, march))
    assert result.check.ok
    program = BPU.load_program(result.hbm)
    assert program.graph_digest == graph.digest()
    assert program.options_digest == BPU.options_digest(options(tmp_path, march))
    expected = execute(graph, images())["up"]
    np.testing.assert_array_equal(BPU.simulate(graph, 1)(images())["up"], expected)
    np.testing.assert_array_equal(BPU.run_program(program, images())["up"], expected)


def test_compiling_writes_program_and_reports(tmp_path):
    result = BPU.compile(network(), options(tmp_path))
    assert result.hbm.exists()
    assert {path.name for path in result.reports} == {"perf.json", "perf.html"}
    assert all(path.exists() for path in result.reports)
    payload = result.to_json()
    assert len(payload["sha256"]) == 64
    assert payload["latency_ms"] > 0
    assert payload["ddr_bytes_per_frame"] >= payload["ddr_bytes_lower_bound"]
    assert BPU.estimate(network(), options(tmp_path)) == result.performance


def test_with_findings_only_the_reports_are_written(tmp_path):
    result = BPU.compile(network(opaque=True), options(tmp_path))
    assert not result.check.ok
    assert "strange" in {violation.node for violation in result.check.violations}
    assert result.hbm is None
    assert result.sha256 is None
    assert not (tmp_path / "model.hbm").exists()
    rest = json.loads((tmp_path / "perf.json").read_text())
    assert rest
    whole = BPU.compile(network(), options(tmp_path / "whole")).performance
    assert result.performance.latency_ms > 0
    assert whole.latency_ms > 0
    assert BPU.estimate(network(opaque=True), options(tmp_path)) == result.performance


def test_a_damaged_program_is_refused(tmp_path):
    path = tmp_path / "model.hbm"
    path.write_bytes(b"no program")
    with pytest.raises(BackendError):
        BPU.load_program(path)
    with pytest.raises(BackendError, match="not a program of the BPU"):
        BPU.run_program(object(), images())


def test_unknown_marches_are_refused():
    with pytest.raises(BackendError, match="no march 'bayess'"):
        BPU.check(network(), "bayess")


def test_the_camera_is_the_same_on_every_march():
    image = np.random.default_rng(2).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert len({BPU.camera_input(image, march).tobytes() for march in MARCHES}) == 1


def test_cores_default_scheme_is_used():
    assert BPU.quant_scheme(None, "bayes") is None


def test_an_integer_network_simulates_on_the_contexts_threads(tmp_path):
    plugins = plugin_manager()
    context = Context(plugins, plugins.catalog(), plugins.backends(), "bayes", "t", tmp_path, threads=3)
    assert integer_network(network(), context)._executor.threads == 3
