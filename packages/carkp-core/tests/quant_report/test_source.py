"""Which network a report is of, and what it knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_toys import opened, write_config

from carkp_core.errors import ConfigError
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant_report.source import open_source

QAT = """
qat_trainer = dict(
    type="Trainer", model=model, data_loader=data_loader, optimizer=dict(type="SGD", lr=1e-6),
    batch_processor=batch_processor, num_epochs=1, callbacks=[val_callback, dict(type="Checkpoint")],
    val_metrics=val_metrics,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline", qat_mode="fuse_bn",
        converters=[dict(type="Float2QAT"), dict(type="LoadStage", stage="calibration")],
    ),
)
"""


def test_calibration_is_what_there_is(folder: Path) -> None:
    source = open_source(opened(folder))
    assert source.stage == "calibration"
    assert isinstance(source.network, QuantizedNetwork)
    assert not source.network.training
    assert source.observer == "min_max"
    assert [metric.name for metric in source.metrics] == ["found"]


def test_qat_counts_once_it_was_trained_from_this_calibration(folder: Path) -> None:
    write_config(folder, QAT)
    assert open_source(opened(folder)).stage == "calibration"
    opened(folder, stage="qat").trainer("qat").fit()
    assert open_source(opened(folder)).stage == "qat"
    assert open_source(opened(folder), "calibration").stage == "calibration"
    opened(folder, "calibration_trainer.num_steps=1", stage="calibration").trainer("calibration").fit()
    assert open_source(opened(folder)).stage == "calibration", "qat is of an older one"


def test_a_config_without_quantization_gets_the_float_stage(folder: Path) -> None:
    write_config(folder, "calibration_trainer = None\n")
    source = open_source(opened(folder))
    assert (source.stage, source.uncalibrated) == ("float", True)


def test_the_metrics_are_those_that_the_config_names(folder: Path) -> None:
    write_config(folder, "calibration_trainer['val_metrics'] = [dict(type=report_toys.Accompanied)]\n")
    session = opened(folder)
    assert [metric.name for metric in session.predictor("calibration").metrics] == ["fuller", "found"]
    assert [metric.name for metric in open_source(session).metrics] == ["found"]


def test_the_float_stage_takes_the_observer_of_calibration(folder: Path) -> None:
    source = open_source(opened(folder), "float")
    assert source.observer == "min_max"
    assert source.network.default_observer().name == "min_max"
    assert source.notes[0].endswith("with the observer min_max and no repairs")
    write_config(folder, "calibration_trainer = None\n")
    assert open_source(opened(folder), "float").observer == "percentile"


@pytest.mark.parametrize(
    ("metric", "checkpoint", "lower"),
    [
        ("report_toys.Missed", "", True),
        ("report_toys.Missed", "mode='max'", False),
        ("report_toys.Missed", "mode='max', monitor_metric_key='missed'", False),
        ("report_toys.Missed", "mode='max', monitor_metric_key='found'", True),
        ("toys.Found", "", False),
        ("toys.Found", "mode='min'", True),
    ],
)
def test_the_direction_of_the_first_metric(folder: Path, metric: str, checkpoint: str, lower: bool) -> None:
    extra = f"calibration_trainer['val_metrics'] = [dict(type={metric})]\n"
    extra += f"calibration_trainer['callbacks'] = [val_callback, dict(type='Checkpoint', {checkpoint})]\n"
    write_config(folder, extra)
    assert open_source(opened(folder)).lower_is_better is lower


def test_a_predictor_that_does_not_quantize_is_refused(folder: Path) -> None:
    extra = "calibration_predictor = dict(type='Predictor', model=model, data_loader=data_loader)\n"
    write_config(folder, extra)
    with pytest.raises(ConfigError, match="not quantized"):
        open_source(opened(folder))


def test_no_data_at_all_is_named(folder: Path) -> None:
    extra = "calibration_predictor = dict(type='Predictor', model=model, data_loader=None, model_convert_pipeline=dict("
    extra += "type='ModelConvertPipeline', converters=[dict(type='Float2Calibration'), "
    extra += "dict(type='LoadStage', stage='calibration')]))\ndel calibration_trainer['data_loader']\n"
    write_config(folder, extra)
    with pytest.raises(ConfigError, match=r"data"):
        open_source(opened(folder))
