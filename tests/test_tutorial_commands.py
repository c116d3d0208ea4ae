"""The tutorial's commands, typed one after the other: they succeed and leave what the tutorial says."""

from __future__ import annotations

import json
import math

import pytest

METRICS = {"PCK@0.02", "PCK@0.05", "PCK@0.1", "AUC", "mean_dist"}


def test_every_command_succeeds_without_a_traceback(workflow):
    failed = {name: done.stderr for name, done in workflow.done.items() if done.status or "Traceback" in done.stderr}
    assert failed == {}
    assert all(done.json is not None for done in workflow.done.values())


def test_the_readme_names_the_ten_tools(workflow):
    assert {name.split()[0] for name in workflow.done} >= {
        "gen-carfusion-data", "carfusion-packer", "calops", "train", "predict", "infer", "align-bpu-validation",
        "model-checker", "compile-perf", "export-onnx",
    }  # fmt: skip


def test_data_is_cropped_and_packed(workflow):
    counts = workflow.done["gen-carfusion-data"].json
    assert json.dumps(counts).count("written") >= 1
    for split in ("train", "test"):
        rows = json.loads((workflow.dir / "cropped" / "simple_anno" / f"keypoints_{split}.json").read_text())
        assert rows
        for image, points in rows.items():
            assert (workflow.dir / "cropped" / image).exists()
            assert [len(point) for point in points] == [3] * 12
        packed = workflow.done[f"carfusion-packer {split}"].json
        assert packed["written"] == len(rows)
        assert packed["skipped"] == {}
        assert (workflow.dir / "tmp_data" / "carfusion" / f"{split}_lmdb").exists()


def test_calops_answers_in_its_form(workflow):
    answer = workflow.done["calops"].json
    assert {"macs", "params", "modules"} <= set(answer)
    assert answer["params"] == 4_153_100
    assert answer["macs"] == sum(module["macs"] for module in answer["modules"])


@pytest.mark.parametrize("stage", ["float", "calibration", "int_infer"])
def test_every_stage_leaves_checkpoints_and_records(workflow, stage):
    for which in ("best", "last"):
        assert (workflow.models / f"{stage}-checkpoint-{which}.pth.tar").exists()
    run = workflow.models / "runs" / f"{stage}-0"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines
    assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    assert "batch_size_per_gpu" in (run / "config.txt").read_text()
    facts = json.loads((run / "run.json").read_text())
    assert {"carkp-core", "carkp-carfusion", "carkp-bpu", "torch"} <= set(facts["versions"])
    assert not list(workflow.models.glob("*.tmp*"))


def test_int_infer_leaves_the_integer_model(workflow):
    assert (workflow.models / "int_infer-checkpoint-best.ir").exists()
    assert (workflow.models / "runs" / "float-0" / "curves.png").exists()


def test_predict_answers_in_its_form(workflow):
    answer = workflow.done["predict int_infer"].json
    assert answer["stage"] == "int_infer"
    assert set(answer["metrics"]) == METRICS
    assert answer["samples"] == workflow.done["carfusion-packer test"].json["written"]
    assert all(0 <= answer["metrics"][name] <= 1 for name in METRICS - {"mean_dist"})


def test_model_checker_answers_in_its_form(workflow):
    answer = workflow.done["model-checker"].json
    assert (answer["march"], answer["ok"], answer["violations"]) == ("bayes", True, [])


def test_compile_perf_writes_program_and_reports(workflow):
    answer = workflow.done["compile-perf"].json
    assert {
        "hbm", "sha256", "march", "sram_bytes", "latency_ms", "fps", "ddr_bytes_per_frame", "ddr_bytes_lower_bound",
        "sram_peak_bytes",
    } <= set(answer)  # fmt: skip
    assert answer["ddr_bytes_per_frame"] >= answer["ddr_bytes_lower_bound"]
    assert answer["sram_peak_bytes"] <= answer["sram_bytes"]
    assert answer["latency_ms"] > 1000 / answer["fps"]
    folder = workflow.models / "compile"
    assert (workflow.dir / answer["hbm"]).resolve() == (folder / "model.hbm").resolve()
    summary = json.loads((folder / "perf.json").read_text())["summary"]
    assert {"FPS", "latency (ms)", "DDR bytes per frame", "BPU march"} <= set(summary)
    page = (folder / "perf.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script src" not in page


def test_align_finds_no_difference(workflow):
    answer = workflow.done["align-bpu-validation"].json
    assert answer["differing_elements"] == 0
    assert answer["samples"] == workflow.done["carfusion-packer test"].json["written"]
    assert set(answer["metrics"]) == {"int_infer", "int_infer_nv12", "hbm"}
    assert answer["metrics"]["int_infer_nv12"] == answer["metrics"]["hbm"]
    assert answer["metrics"]["int_infer"] == workflow.done["predict int_infer"].json["metrics"]
    assert "compiling" not in workflow.done["align-bpu-validation"].stderr, "compile-perf's program was current"


def test_infer_draws_at_the_images_own_resolution(workflow):
    import cv2

    (picture,) = (workflow.dir / "drawn").glob("*.png")
    drawn, image = cv2.imread(str(picture)), cv2.imread(str(workflow.dir / "car.jpg"))
    assert drawn.shape[1] % image.shape[1] == 0 or drawn.shape == image.shape
    answer = json.loads(picture.with_suffix(".json").read_text())
    points = answer["keypoints"] if "keypoints" in answer else answer["images"][0]["keypoints"]
    assert len(points) == 12
    assert all(math.isfinite(point["x"]) and math.isfinite(point["confidence"]) for point in points)


def test_export_writes_a_float_model_that_runs(workflow):
    onnxruntime = pytest.importorskip("onnxruntime")
    import numpy as np

    path = workflow.dir / workflow.done["export-onnx"].json["onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (declared,) = session.get_inputs()
    (heatmaps,) = session.run(None, {declared.name: np.zeros((1, 3, 64, 64), np.float32)})
    assert heatmaps.shape == (1, 12, 16, 16)
