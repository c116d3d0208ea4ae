"""A report of a config's network: complete, stopped and gone on with, of chosen layers, of any config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from npu_toys import write_config as write_single_stage_config
from report_toys import LAYERS, opened, reported, train, write_config

from carkp_core.cli_options import write_json
from carkp_core.errors import CheckpointError, ConfigError, DataError, QuantizationError
from carkp_core.quant_report.report import QuantReport, ReportOptions, report_session
from carkp_core.train.interrupts import StoppedError


def as_text(report: QuantReport, folder: Path) -> str:
    write_json(folder / "one.json", report.to_json())
    return (folder / "one.json").read_text()


def test_the_whole_report(folder: Path) -> None:
    report = reported(folder)
    found = report.sensitivity
    assert (report.task, report.stage, report.march) == ("toy", "calibration", "toy-1")
    assert [layer.name for layer in found.layers] == LAYERS
    assert found.samples == 24
    assert found.metric == "found"
    assert found.metrics_float["found"] == 1.0
    assert found.network_db > 20
    stem = found.layers[1]
    assert stem.observer == "min_max"
    assert stem.clipping == 0.0
    assert [Path(path).name for path in report.checkpoints] == ["calibration-checkpoint-best.pth.tar"]
    assert report.notes == ()


def test_the_metrics_are_those_of_predict(folder: Path) -> None:
    found = reported(folder).sensitivity
    for stage, metrics in (("float", found.metrics_float), ("calibration", found.metrics_quantized)):
        assert metrics == opened(folder, stage=stage).predictor(stage).predict().metrics


def test_a_metric_of_which_lower_is_better(folder: Path) -> None:
    write_config(folder, "calibration_trainer['val_metrics'] = [dict(type=report_toys.Missed)]\n")
    found = reported(folder).sensitivity
    assert (found.metric, found.lower_is_better) == ("missed", True)
    assert found.loss == found.metrics_quantized["missed"] - found.metrics_float["missed"]


def test_data_that_nothing_can_be_said_of(folder: Path) -> None:
    write_config(folder, "transforms.append(dict(type=report_toys.Spoil))\n")
    with pytest.raises(QuantizationError, match="NaN or infinite values in the network input"):
        reported(folder)
    with pytest.raises(DataError, match="0 samples"):
        reported(folder, "data_loader.dataset.count=0")


def test_stopped_and_gone_on_with_it_is_the_very_same(folder: Path) -> None:
    whole = as_text(reported(folder, batch_size=4), folder)
    journal = folder / "models" / "quant-report" / "calibration" / "journal.jsonl"
    journal.unlink()
    (folder / "stop").touch()
    with pytest.raises(StoppedError) as stop:
        reported(folder, batch_size=4)
    assert stop.value.exit_status == 130
    assert "2 of 6 batches are kept" in stop.value.message
    assert len(journal.read_text().splitlines()) == 1 + 2

    said: list[str] = []
    report = report_session(opened(folder), ReportOptions(batch_size=4), say=said.append)
    assert said == ["going on after 2 of 6 batches that an earlier run measured"]
    assert as_text(report, folder) == whole
    again: list[str] = []
    report = report_session(opened(folder), ReportOptions(batch_size=4), say=again.append)
    assert again == ["all 6 batches were measured by an earlier run (--fresh measures them again)"]
    assert as_text(report, folder) == whole


def test_what_was_of_something_else_is_measured_anew(folder: Path) -> None:
    def said(*opts: str, **options: Any) -> list[str]:
        lines: list[str] = []
        report_session(opened(folder, *opts), ReportOptions(batch_size=12, **options), say=lines.append)
        return lines

    assert said() == []
    assert "was of another" in said(samples=12)[0]
    assert "was of another" in said()[0]
    assert said(fresh=True) == []
    train(folder, "calibration", opts=("calibration_trainer.num_steps=1",))
    assert "was of another" in said()[0]


def test_some_layers_only(folder: Path) -> None:
    whole = reported(folder, samples=8).sensitivity
    found = reported(folder, samples=8, layers=("*wise", "head")).sensitivity
    assert [layer.name for layer in found.layers] == ["depthwise", "head"]
    assert found.layers[0].network_alone_db == whole.layers[2].network_alone_db
    with pytest.raises(ConfigError, match="no layer's name fits") as error:
        reported(folder, layers=("depthwize",))
    assert "did you mean 'depthwise'" in str(error.value)


def test_broken_channels_are_named_first(tmp_path: Path) -> None:
    opts = ("factor=50",)
    write_config(tmp_path)
    train(tmp_path, "float", "calibration", opts=opts)
    report = reported(tmp_path, *opts)
    worst = report.sensitivity.ranked()[0]
    assert worst.name == "depthwise"
    assert worst.advice[0].action == "equalize"
    assert report.to_json()["worst_layers"][0] == "depthwise"
    assert report.sensitivity.metrics_float["found"] == 1.0


def test_a_stage_that_was_not_run(tmp_path: Path) -> None:
    write_config(tmp_path)
    with pytest.raises(CheckpointError, match="train --stage calibration"):
        reported(tmp_path)
    with pytest.raises(ConfigError, match="no stage 'qat'"):
        reported(tmp_path, stage="qat")


def test_an_observer_that_chooses_has_what_to_choose_on(folder: Path) -> None:
    observer = "calibration_trainer.model_convert_pipeline.qconfig_params.activation_calibration_observer='mix'"
    found = reported(folder, observer, stage="float").sensitivity
    assert any(layer.offers for layer in found.layers)


def test_the_float_stage_is_calibrated_on_the_spot(folder: Path) -> None:
    report = reported(folder, stage="float")
    assert report.stage == "float"
    assert "calibrated on the samples" in report.notes[0]
    assert report.sensitivity.metrics_float == reported(folder).sensitivity.metrics_float
    assert report.sensitivity.network_db > 15


def test_without_metrics_the_outputs_signal_to_noise_remains(folder: Path) -> None:
    write_config(folder, "calibration_trainer['val_metrics'] = []\n")
    found = reported(folder).sensitivity
    assert found.metric == ""
    assert found.network_db > 20
    assert json.loads(as_text(reported(folder), folder))["metrics_float"] == {}


def test_without_validation_data_the_training_data_do(folder: Path) -> None:
    extra = "val_data_loader = None\ncalibration_trainer['callbacks'] = [dict(type='Checkpoint')]\n"
    write_config(folder, extra)
    assert reported(folder).sensitivity.metrics_quantized["found"] > 0.5


def test_a_config_with_nothing_but_a_deployed_network(tmp_path: Path) -> None:
    write_single_stage_config(tmp_path)
    report = report_session(opened(tmp_path), ReportOptions(samples=8))
    assert report.stage == "deploy_model"
    assert "random inputs" in report.notes[0]
    assert report.sensitivity.samples == 8
    assert report.sensitivity.metric == ""
