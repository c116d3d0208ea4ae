"""StatsMonitor, MetricUpdater and TensorBoard: what is written down of a run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from train_toys import make_context, make_trainer

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.metric_updater import MetricUpdater
from carkp_core.train.callbacks.stats_monitor import StatsMonitor
from carkp_core.train.callbacks.tensorboard import TensorBoard


def records(folder: Path, *callbacks: Any) -> list[dict[str, Any]]:
    make_trainer(make_context(folder), callbacks=list(callbacks), num_epochs=1).fit()
    lines = (folder / "runs" / "float-0" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_stats_are_written_every_so_many_steps(tmp_path: Path) -> None:
    found = [record for record in records(tmp_path, StatsMonitor(log_freq=3)) if "step_loss" in record]
    assert [record["step"] for record in found] == [3, 6]
    assert all(record["images_per_s"] > 0 and record["lr"] == 0.01 for record in found)


def test_training_metrics_are_written_under_their_prefix(tmp_path: Path) -> None:
    found = [
        record for record in records(tmp_path, MetricUpdater(step_log_freq=4, log_prefix="toy")) if "toy loss" in record
    ]
    assert [record["step"] for record in found] == [4]


def test_an_update_function_by_name(tmp_path: Path) -> None:
    name = "carkp_core.train.metrics.update_loss"
    updater = MetricUpdater(name, context=make_context(tmp_path))
    assert records(tmp_path, updater)[-1]["loss"] > 0


def test_bad_frequency() -> None:
    with pytest.raises(ConfigError, match="log_freq"):
        StatsMonitor(log_freq=0)


def test_tensorboard(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(ConfigError, match="not installed") as error:
            records(tmp_path, TensorBoard())
        assert "carkp-core[tensorboard]" in str(error.value.remedy)
        return
    records(tmp_path, TensorBoard(update_freq=2))
    assert any((tmp_path / "runs" / "float-0" / "tensorboard").iterdir())
