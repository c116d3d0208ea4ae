"""From generated data to a validated program, with the backbone and the operator of this package."""

import json
import os
import subprocess
import sys

import pytest

CONFIG = "funnel_keypoints"
TINY = ("num_epochs=1", "batch_size=4", "width=8")
OPTIONS = [part for option in TINY for part in ("--opts", option)]


@pytest.fixture(scope="module")
def carkp(tmp_path_factory):
    """Runs carkp's command in one folder; returns what ``--json`` wrote, where asked for."""
    folder = tmp_path_factory.mktemp("workflow")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def call(*args: str, json_file: str = "") -> dict:
        extra = ("--json", json_file) if json_file else ()
        command = [sys.executable, "-m", "carkp_core", *args, *extra]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{' '.join(args)}\n{result.stdout}\n{result.stderr}"
        return json.loads((folder / json_file).read_text()) if json_file else {}

    return call


def test_checks_that_need_no_training(carkp):
    carkp("config", "check", CONFIG)
    check = carkp("model-checker", "--config", CONFIG, json_file="check.json")
    assert check["ok"]
    assert {node["verdict"] for node in check["nodes"] if node["op"] == "maximum"} == {"NPU"}
    perf = carkp("compile-perf", "--config", CONFIG, "--fast-perf", json_file="fast.json")
    assert perf["latency_ms"] > 0


def test_the_workflow(carkp):
    size = ("--frames-train", "8", "--frames-test", "3", "--size", "640x360", "--difficulty", "easy")
    carkp("synth-carfusion", "--out", "raw", *size)
    carkp("gen-carfusion-data", "--src-data-path", "raw", "--out-dir", "cropped", "--num-workers", "1")
    for split in ("train", "test"):
        pack = ("--src-data-dir", "cropped", "--target-data-dir", "tmp_data/carfusion", "--num-workers", "1")
        carkp("carfusion-packer", *pack, "--split-name", split, "--pack-type", "lmdb")
    for stage in ("float", "calibration", "int_infer"):
        carkp("train", "--config", CONFIG, "--stage", stage, *OPTIONS)
    result = carkp("compile-perf", "--config", CONFIG, *OPTIONS, json_file="perf.json")
    assert result["ok"]
    aligned = carkp("align-bpu-validation", "--config", CONFIG, *OPTIONS, json_file="align.json")
    assert aligned["differing_elements"] == 0
    for stage in ("float", "int_infer"):
        carkp("export-onnx", "--config", CONFIG, "--stage", stage, *OPTIONS)
