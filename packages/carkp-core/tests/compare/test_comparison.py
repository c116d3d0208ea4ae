"""Names of sides, what may be compared, and the machine-readable form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import attrs
import pytest
from compare_toys import change, graph_of, opened, other_weight, put

from carkp_core.cli_options import write_json
from carkp_core.compare.comparison import Comparison, compare_session, compare_sides, open_side, require_side
from carkp_core.compare.floats import Error, FloatFindings, LayerError
from carkp_core.compare.samples import validation_samples
from carkp_core.errors import ConfigError


def test_an_unknown_side_suggests(tmp_path: Path) -> None:
    for name, meant in (("calibraton", "calibration"), ("int-infer", "int_infer"), ("hmb", "hbm")):
        with pytest.raises(ConfigError, match=rf"did you mean '{meant}'\?") as error:
            require_side(name)
        assert "float, calibration, qat, int_infer, hbm, or the path of an .onnx file" in str(error.value)
    with pytest.raises(ConfigError, match="called 'zzz'") as error:
        require_side("zzz")
    assert error.value.remedy is None
    with pytest.raises(ConfigError, match="no such ONNX file"):
        require_side(str(tmp_path / "model.onnx"))


def test_float_needs_an_integer_model_beside_it(trained: Path) -> None:
    with pytest.raises(ConfigError, match="only beside an integer model"):
        compare_session(opened(trained), ("float", "float"))


def test_a_stage_that_the_config_lacks(folder: Path) -> None:
    with (folder / "toy.py").open("a") as config:
        config.write("qat_trainer = None\n")
    with pytest.raises(ConfigError, match="no stage 'qat'"):
        compare_session(opened(folder), ("qat", "int_infer"))


def test_models_without_a_common_layer(trained: Path) -> None:
    session = opened(trained)
    side = open_side(session, "int_infer")
    renamed = {"img": side.tensors["img"], **{f"other.{n}": d for n, d in side.tensors.items()}}
    samples = validation_samples(session, "int_infer", side.inputs, 1)
    with pytest.raises(ConfigError, match="no layer in common"):
        compare_sides(session, side, attrs.evolve(side, tensors=renamed), samples)


def test_a_program_is_compiled_first_and_said(folder: Path) -> None:
    said: list[str] = []
    session = opened(folder)
    assert compare_session(session, ("int_infer", "hbm"), num_samples=1, say=said.append).compiled_because
    assert [line.rpartition(": ")[2] for line in said] == ["there is no program yet"]
    found = compare_session(session, ("hbm", "calibration"), num_samples=1, say=said.append)
    assert found.ok
    assert found.compiled_because == ""
    assert len(said) == 1
    put(folder, change(graph_of(folder), "head", other_weight))
    found = compare_session(session, ("hbm", "int_infer"), num_samples=1, say=said.append)
    assert found.ok
    assert "another integer model" in said[1]


def test_json_of_integers(folder: Path) -> None:
    put(folder, change(graph_of(folder), "narrow", other_weight))
    found = compare_session(opened(folder), ("calibration", "int_infer"), num_samples=2)
    write_json(folder / "out.json", found.to_json())
    payload = json.loads((folder / "out.json").read_text())
    assert set(payload) == {
        "a", "b", "kind", "ok", "images", "elements", "differing_elements", "first", "layers", "only_a", "only_b",
        "compiled_because", "notes",
    }  # fmt: skip
    assert (payload["kind"], payload["ok"], payload["images"]) == ("integer", False, 2)
    assert payload["differing_elements"] == sum(layer["differing"] for layer in payload["layers"])
    first = payload["first"]
    assert (first["layer"], first["op"], first["image"]) == ("narrow", "conv2d", "sample 0")
    assert len(first["index"]) == 3
    assert set(first["a"]) == {"value", "accumulator", "multiplier", "shift", "terms", "reference"}
    assert first["a"]["accumulator"] == first["a"]["terms"][0]["value"] != first["b"]["accumulator"]
    assert first["a"]["multiplier"] == first["b"]["multiplier"]


def test_json_of_errors(tmp_path: Path) -> None:
    exact, error = Error(math.inf, 1.0), Error(30.0, 0.999)
    layer = LayerError("stem", "conv2d", "net.py:3", 9, error, exact, error)
    write_json(tmp_path / "out.json", Comparison("float", "hbm", 3, FloatFindings((layer,))).to_json())
    payload = json.loads((tmp_path / "out.json").read_text())
    assert (payload["kind"], payload["ok"]) == ("float", True)
    (plain,) = payload["layers"]
    assert plain["own"] == {"sqnr_db": 30.0, "cosine": 0.999}
    assert plain["inherited"] == {"sqnr_db": None, "cosine": 1.0}
