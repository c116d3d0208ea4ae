"""A QDQ file beside the integer model: the same layers, differences at ties only, never exit status 1."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from compare_toys import change, graph_of, opened, other_multiplier, put

from carkp_core.commands.export_onnx import export_session
from carkp_core.compare.comparison import compare_session, open_side
from carkp_core.compare.element import Term
from carkp_core.compare.floats import FloatFindings
from carkp_core.compare.integers import Divergence, IntegerFindings, Witness
from carkp_core.compare.samples import validation_samples
from carkp_core.errors import ConfigError

LAYERS = ["img", "stem", "wide", "narrow", "avg_pool2d", "up", "cat", "head"]


@pytest.fixture
def exported(folder: Path) -> str:
    path = folder / "model.onnx"
    export_session(opened(folder), "int_infer", path)
    return str(path)


def test_layers_are_those_of_the_integer_model(folder: Path, exported: str) -> None:
    found = compare_session(opened(folder), ("int_infer", exported), num_samples=4)
    findings = found.findings
    assert isinstance(findings, IntegerFindings)
    assert [layer.name for layer in findings.layers] == LAYERS
    assert (found.ok, found.only_a, found.only_b, found.notes) == (True, (), (), ())
    assert findings.layers[0].differing == 0
    assert findings.differing < findings.elements / 100
    assert all((layer.max_difference or 0) <= 2 for layer in findings.layers)


def test_a_difference_is_no_finding_for_the_exit_status(folder: Path, exported: str) -> None:
    put(folder, change(graph_of(folder), "up", other_multiplier))
    found = compare_session(opened(folder), ("int_infer", exported), num_samples=2)
    assert found.ok
    assert isinstance(found.findings, IntegerFindings)
    assert found.findings.differing > 0
    assert f"{exported} was not exported from the config's present integer model" in found.notes


def test_beside_float_the_errors_are_those_of_the_integer_model(folder: Path, exported: str) -> None:
    session = opened(folder)
    onnx_errors, integer_errors = (
        compare_session(session, ("float", name), num_samples=4).findings for name in (exported, "int_infer")
    )
    assert isinstance(onnx_errors, FloatFindings)
    assert isinstance(integer_errors, FloatFindings)
    for one, other in zip(onnx_errors.layers, integer_errors.layers, strict=True):
        assert one.own == other.own
        assert one.total.cosine == pytest.approx(other.total.cosine, abs=1e-3)


def test_a_foreign_file_has_no_own_errors(folder: Path, exported: str) -> None:
    put(folder, change(graph_of(folder), "up", other_multiplier))
    findings = compare_session(opened(folder), (exported, "float"), num_samples=1).findings
    assert isinstance(findings, FloatFindings)
    assert all(layer.own is None and layer.inherited is None for layer in findings.layers)
    assert findings.layers[-1].total.sqnr_db > 20
    assert findings.worst is None


def test_onnxs_own_evaluator_takes_over_without_onnx_runtime(
    folder: Path, exported: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(folder)
    ((_, images),) = validation_samples(session, "int_infer", ("img",), 2).batches(2)
    fast = open_side(session, exported).walk(images)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    slow = open_side(session, exported).walk(images)
    assert list(slow) == LAYERS
    for name, value in slow.items():
        assert value.dtype == np.int8
        assert (value != fast[name]).mean() < 0.02


def test_files_that_are_no_qdq_model(folder: Path) -> None:
    session = opened(folder)
    bad = folder / "bad.onnx"
    bad.write_bytes(b"\x00\x01no model")
    with pytest.raises(ConfigError, match="the ONNX file cannot be read"):
        open_side(session, str(bad))
    export_session(session, "float", folder / "float.onnx")
    with pytest.raises(ConfigError, match="holds no quantized tensors"):
        open_side(session, str(folder / "float.onnx"))


def test_a_file_of_another_model(folder: Path, exported: str) -> None:
    model = onnx.load(exported)
    renamed = {name: f"other.{name}" for name in LAYERS}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) if name != "img" else name for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    del model.graph.value_info[:]
    other = folder / "other.onnx"
    model.metadata_props[0].value = "x"
    onnx.save(model, str(other))
    with pytest.raises(ConfigError, match="no layer in common"):
        compare_session(opened(folder), ("int_infer", str(other)), num_samples=1)


def test_a_tie_is_explained() -> None:
    terms = (Term("accumulator", 3, 1 << 30, 31),)
    first = Divergence("x", "conv2d", "", "", (0,), Witness(2, terms, 2), Witness(1, terms, 2), onnx=True)
    assert "the exact value is 0 off a tie" in first.explanation("int_infer", "m.onnx")
