"""Beside float: errors of the size that rounding gives, and total = own + inherited."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compare_toys import change, copied, graph_of, opened, other_multiplier, put
from npu_toys import ToyBackend

from carkp_core.compare.comparison import compare_session, open_side
from carkp_core.compare.floats import Error, FloatFindings, LayerError, LoneLayers, unchained
from carkp_core.compare.samples import validation_samples
from carkp_core.ir.arithmetic import dequantize, quantize
from carkp_core.ir.reference import execute_node
from carkp_core.ir.verify import verify


def errors(folder: Path, a: str, b: str) -> dict[str, LayerError]:
    found = compare_session(opened(folder), (a, b), num_samples=5)
    assert found.ok
    assert isinstance(found.findings, FloatFindings)
    return {layer.name: layer for layer in found.findings.layers}


@pytest.fixture(scope="module")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LayerError]:
    return errors(copied(trained, tmp_path_factory.mktemp("floats")), "float", "int_infer")


def test_values_are_those_of_eight_bits(measured: dict[str, LayerError]) -> None:
    assert list(measured) == ["img", "stem", "wide", "narrow", "avg_pool2d", "up", "cat", "head"]
    for layer in measured.values():
        assert layer.own is not None
        assert layer.inherited is not None
        if layer.name == "img":
            assert layer.own.sqnr_db == layer.total.sqnr_db == math.inf
            assert layer.own.decibels == "exact"
            continue
        for error in (layer.own, layer.total):
            assert 20 < error.sqnr_db < 60
            assert 0.99 < error.cosine <= 1
        assert 0 < layer.own.relative < 0.1
    stem = measured["stem"]
    assert stem.inherited == Error(math.inf, 1.0)
    assert stem.own == stem.total


def test_the_numbers_are_those_of_the_definition(
    trained: Path, tmp_path: Path, measured: dict[str, LayerError]
) -> None:
    folder = copied(trained, tmp_path)
    session, graph = opened(folder), graph_of(folder)
    ((_, images),) = validation_samples(session, "float", ("img",), 5).batches(5)
    floats = open_side(session, "float").walk(images)
    present = open_side(session, "int_infer").walk(images)
    types = graph.types()
    for name in ("narrow", "cat", "head"):
        node = graph.node(name)
        inputs = tuple(quantize(floats[i], types[i].scale, types[i].dtype) for i in node.inputs)
        alone = dequantize(execute_node(node, inputs), node.type.scale).astype(np.float64)
        f, q = floats[name].astype(np.float64), dequantize(present[name], node.type.scale).astype(np.float64)
        layer = measured[name]
        for error, noise, pair in (
            (layer.own, alone - f, (f, alone)),
            (layer.inherited, q - alone, (q, alone)),
            (layer.total, q - f, (f, q)),
        ):
            assert error is not None
            assert error.sqnr_db == pytest.approx(10 * math.log10((f**2).sum() / (noise**2).sum()))
            cosine = (pair[0] * pair[1]).sum() / math.sqrt((pair[0] ** 2).sum() * (pair[1] ** 2).sum())
            assert error.cosine == pytest.approx(cosine)


def test_the_float_side_is_the_float_model(trained: Path, tmp_path: Path) -> None:
    session = opened(copied(trained, tmp_path), stage="float")
    ((_, images),) = validation_samples(session, "float", ("img",), 4).batches(4)
    side = open_side(session, "float")
    predictor = session.predictor("float")
    model = predictor.model_convert_pipeline(predictor.model).eval()
    with torch.inference_mode():
        wanted = model({"img": images[0]}).numpy()
    np.testing.assert_allclose(side.walk(images)["head"], wanted, atol=1e-5)


def test_a_changed_multiplier_is_the_layers_own_error_and_the_next_ones_inheritance(
    folder: Path, measured: dict[str, LayerError]
) -> None:
    put(folder, change(graph_of(folder), "wide", other_multiplier))
    broken = errors(folder, "int_infer", "float")

    def loss(name: str, kind: str) -> float:
        return float(getattr(measured[name], kind).sqnr_db - getattr(broken[name], kind).sqnr_db)

    assert loss("wide", "own") > 10
    assert abs(loss("wide", "inherited")) < 2
    assert loss("narrow", "inherited") > 0.1
    assert loss("narrow", "own") == 0
    assert loss("head", "own") == 0


def test_every_integer_side_gives_the_same_errors(folder: Path, measured: dict[str, LayerError]) -> None:
    assert errors(folder, "hbm", "float") == measured
    assert {n: (e.own, e.total) for n, e in errors(folder, "float", "calibration").items()} == {
        n: (e.own, e.total) for n, e in measured.items()
    }


def test_lone_layers_are_a_sound_graph_and_run_on_any_executor(trained: Path) -> None:
    graph = graph_of(trained)
    names = list(graph.types())
    alone = unchained(graph, names)
    verify(alone)
    assert all(i.startswith("float:") for node in alone.nodes for i in node.inputs)
    without = unchained(graph, [name for name in names if name != "up"])
    assert [node.name for node in graph.nodes if node.name not in {n.name for n in without.nodes}] == ["cat"]
    rng = np.random.default_rng(0)
    floats: dict[str, Any] = {
        n: rng.normal(0, 0.2, (2, *t.shape[1:])).astype(np.float32) for n, t in graph.types().items()
    }
    plain, fast = (LoneLayers(graph, names, backend)(floats) for backend in (None, ToyBackend()))
    assert set(plain) == set(names)
    for name, value in plain.items():
        np.testing.assert_array_equal(value, fast[name])


def test_the_worst_layer_is_the_one_that_adds_most() -> None:
    def layer(name: str, own: float | None) -> LayerError:
        error = Error(30.0, 1.0)
        return LayerError(name, "conv2d", "", 1, None if own is None else Error(own, 1.0), error, error)

    assert FloatFindings((layer("a", 40.0), layer("b", 12.0), layer("c", 20.0))).worst == layer("b", 12.0)
    assert FloatFindings((layer("a", None),)).worst is None
