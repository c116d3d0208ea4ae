"""Another NPU, as `carkp plugin new --kind backend` writes it, in every command: core knows of no BPU."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest
from npu_toys import SIZE, toy_graph, write_config

from carkp_core.cli import run
from carkp_core.commands.plugin_new import write_package
from carkp_core.plugins import plugin_manager

MARCH = "acme-npu"

#: What `--march` chose, by the key of the JSON that tells it.
WITH_A_MARCH = {
    "model-checker": (),
    "compile-perf": (),
    "compile-perf --fast-perf": ("--fast-perf",),
    "align-bpu-validation": (),
    "calops": (),
    "predict": ("--stage", "int_infer"),
    "quant-report": ("--samples", "2"),
}


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """Core and the new NPU, nothing else."""
    folder = tmp_path_factory.mktemp("npu")
    write_package(MARCH, "backend", folder / "package")
    sys.path.insert(0, str(folder / "package" / "src"))
    found = plugin_manager(load_installed=False)
    found.add("acme", "acme-npu 0.1.0", lambda: importlib.import_module("acme_npu.plugin"))
    yield found
    sys.path.remove(str(folder / "package" / "src"))


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path, toy_graph(MARCH)))


@pytest.mark.parametrize("line", WITH_A_MARCH)
def test_every_command_takes_its_march(line, manager, config, tmp_path):
    words = [line.split()[0], "--config", config, "--march", MARCH, *WITH_A_MARCH[line], "--json", "out.json"]
    assert run(words, manager) == 0
    assert json.loads((tmp_path / "out.json").read_text())


def test_the_validation_differs_nowhere(manager, config, tmp_path):
    assert run(["align-bpu-validation", "--config", config, "--march", MARCH, "--json", "align.json"], manager) == 0
    assert json.loads((tmp_path / "align.json").read_text())["differing_elements"] == 0


def test_integer_model_and_program_compare_equal(manager, config, tmp_path):
    words = ["compare", "int_infer", "hbm", "--config", config, "--march", MARCH, "--num-samples", "2"]
    assert run(words, manager) == 0


def test_inference_and_export(manager, config, tmp_path):
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[3, 5] = 255
    np.save(tmp_path / "image.npy", image)
    words = ["--config", config, "--march", MARCH, "--model-inputs", "img:image.npy", "--save-path", "drawn"]
    assert run(["infer", *words], manager) == 0
    assert run(["export-onnx", "--config", config, "--march", MARCH, "--stage", "int_infer"], manager) == 0


def test_its_march_is_listed_and_a_wrong_one_is_met_with_it(manager, config, capsys):
    assert run(["plugins", "--verbose"], manager) == 0
    assert "acme-npu 0.1.0: acme-npu" in capsys.readouterr().out
    assert run(["model-checker", "--config", config, "--march", "acme"], manager) == 2
    assert MARCH in capsys.readouterr().err
