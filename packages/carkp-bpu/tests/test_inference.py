"""The library call: load a model, run numpy batches, from any thread; the page's example runs as it stands."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from carkp_bpu.backend import BpuBackend
from carkp_bpu.inference import load_model
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError, CarkpError, GraphError
from carkp_core.ir import binary
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.ir.reference import execute

PAGE = Path(__file__).parents[3] / "docs" / "simulator.md"


def network() -> Graph:
    rng = np.random.default_rng(0)
    image, out = TensorType((1, 3, 16, 16), "int8", 1 / 128), TensorType((1, 8, 8, 8), "int8", 0.05)
    numbers = rng.integers(-999, 999, 8), rng.integers(1 << 30, 1 << 31, 8), np.full(8, 39)
    op = ops.Conv2d(rng.integers(-127, 128, (8, 3, 3, 3)), *numbers, 0, 127, (2, 2), (1, 1, 1, 1))
    node = Node("heatmaps", op, ("img",), out)
    return Graph("bench", (GraphInput("img", image),), (node,), ("heatmaps",))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    graph = network()
    binary.write(graph, tmp_path / "model.ir")
    options = CompileOptions("bayes", "bench", tmp_path / "model.hbm", tmp_path)
    assert BpuBackend().compile(graph, options).hbm
    return {"ir": tmp_path / "model.ir", "hbm": tmp_path / "model.hbm"}


def images(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"img": np.random.default_rng(seed).integers(-128, 128, (count, 3, 16, 16), dtype=np.int8)}


@pytest.mark.parametrize("kind", ["ir", "hbm"])
def test_both_kinds_of_file_give_the_references_integers(files, kind):
    model = load_model(files[kind], threads=2)
    assert model.name == "bench"
    assert model.inputs["img"].shape == (3, 16, 16)
    assert (model.outputs["heatmaps"].shape, model.outputs["heatmaps"].dtype) == ((8, 8, 8), "int8")
    for count in (0, 1, 5):
        found = model(images(count))["heatmaps"]
        np.testing.assert_array_equal(found, execute(network(), images(max(count, 1)))["heatmaps"][:count])


@pytest.mark.parametrize("kind", ["ir", "hbm"])
def test_any_number_of_threads_may_call(files, kind):
    model = load_model(files[kind], threads=2)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda seed: model(images(1 + seed % 4, seed))["heatmaps"], range(24)))
    for seed, result in enumerate(found):
        np.testing.assert_array_equal(result, execute(network(), images(1 + seed % 4, seed))["heatmaps"])


def test_real_values_become_integers_and_back(files):
    model = load_model(files["ir"])
    values = np.array([-2.0, 0.5 / 128, 1.5 / 128, 1.0])
    assert model.quantize({"img": values})["img"].tolist() == [-128, 0, 2, 127]
    assert model.dequantize({"heatmaps": np.array([2], np.int8)})["heatmaps"].tolist() == [np.float32(0.05) * 2]
    with pytest.raises(GraphError, match="no output 'x'"):
        model.dequantize({"x": values})


@pytest.mark.parametrize("kind", ["ir", "hbm"])
@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda x: x.astype(np.float32), "float32"),
        (lambda x: x.transpose(0, 2, 3, 1), r"16, 16, 3"),
        (lambda x: x[:, :, :8], r"3, 8, 16"),
    ],
)
def test_wrong_inputs_are_refused_with_what_was_seen(files, kind, change, seen):
    with pytest.raises(CarkpError, match=seen):
        load_model(files[kind])({"img": change(images(2)["img"])})
    with pytest.raises(CarkpError, match="'img' is missing"):
        load_model(files[kind])({})


def test_files_that_are_no_models_are_refused(tmp_path, files):
    with pytest.raises(GraphError, match="cannot be read"):
        load_model(tmp_path / "nothing.ir")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(GraphError, match="not an integer model"):
        load_model(tmp_path / "text")
    files["hbm"].write_bytes(files["hbm"].read_bytes()[:-9])
    with pytest.raises(BackendError):
        load_model(files["hbm"])
    with pytest.raises(ValueError, match="at least 1"):
        load_model(files["ir"], threads=0)


def test_the_pages_example_runs(files, monkeypatch, capsys):
    monkeypatch.chdir(files["ir"].parent)
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    exec(block[1], {})
    assert capsys.readouterr().out.strip() == "heatmaps (32, 8, 8, 8) float32"


@pytest.mark.parametrize("kind", ["ir", "hbm"])
def test_arrays_without_a_name_and_values_that_are_not_finite_are_refused(files, kind):
    model = load_model(files[kind])
    array = images(1)["img"]
    for wrong in (
        lambda: model(array),
        lambda: model(None),
        lambda: model.quantize(array),
        lambda: model.dequantize(array),
    ):
        with pytest.raises(CarkpError, match="by name"):
            wrong()
    with pytest.raises(GraphError, match="not finite"):
        model.quantize({"img": np.full((1, 3, 16, 16), np.nan)})
