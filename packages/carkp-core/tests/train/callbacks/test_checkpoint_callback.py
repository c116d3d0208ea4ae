from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from train_toys import make_context, make_trainer, spot_loader

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.checkpoint import Checkpoint
from carkp_core.train.checkpoint import read_checkpoint


class Scores(Callback):
    """Stands in for a validation whose result is known."""

    def __init__(self, values: list[float | None]) -> None:
        self.values = values

    def on_epoch_end(self, training: Any) -> None:
        value = self.values[training.epoch]
        if value is not None:
            training.metrics, training.validated_epoch = {"near": value, "dist": -value}, training.epoch


def best_epoch(folder: Path, values: list[float | None], **options: Any) -> int:
    context = make_context(folder)
    callbacks = [Scores(values), Checkpoint(context=context, **options)]
    make_trainer(context, callbacks=callbacks, num_epochs=len(values), data_loader=spot_loader(4, 4)).fit()
    return int(read_checkpoint(context.checkpoint("float"))["epoch"])


@pytest.mark.parametrize(
    ("values", "options", "epoch"),
    [
        ([0.1, 0.5, 0.3], {}, 2),
        ([0.5, 0.5, 0.5], {}, 1),
        ([0.1, 0.5, 0.3], {"mode": "min"}, 1),
        ([0.1, 0.5, 0.3], {"monitor_metric_key": "dist"}, 1),
        ([float("nan"), 0.2, float("nan")], {}, 2),
        ([float("nan"), float("nan")], {}, 2),
        ([None, 0.4, None, 0.5], {}, 4),
        ([0.6, None, 0.5], {}, 1),
    ],
)
def test_best_is_the_best_of_what_is_monitored(
    tmp_path: Path, values: list[float | None], options: dict[str, Any], epoch: int
) -> None:
    assert best_epoch(tmp_path, values, **options) == epoch


def test_where_it_saves_and_how_often(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    seen: list[int | None] = []
    checkpoint = Checkpoint(tmp_path / "elsewhere", "mine-", save_interval=2, context=context)

    class Look(Callback):
        def on_epoch_begin(self, training: Any) -> None:
            path = checkpoint.path("last")
            seen.append(read_checkpoint(path)["epoch"] if path.exists() else None)

    make_trainer(
        context, callbacks=[checkpoint, Look()], val_metrics=[], num_epochs=5, data_loader=spot_loader(4, 4)
    ).fit()
    assert seen == [None, None, 2, 2, 4]
    assert checkpoint.path("last") == tmp_path / "elsewhere" / "mine-checkpoint-last.pth.tar"
    assert read_checkpoint(checkpoint.path("last"))["epoch"] == 5
    assert read_checkpoint(checkpoint.path("best"))["epoch"] == 5, "without metrics the latest is the best"


def test_saves_between_epochs_where_steps_are_counted(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    saved: list[int] = []
    checkpoint = Checkpoint(save_interval=2, interval_by="step", context=context)
    write = checkpoint._write
    checkpoint._write = lambda t, which, resumable: (saved.append(t.step), write(t, which, resumable))  # type: ignore[method-assign,assignment,func-returns-value]
    make_trainer(context, callbacks=[checkpoint], val_metrics=[], num_epochs=1, data_loader=spot_loader(20, 4)).fit()
    assert saved == [2, 4, 5, 5], "last at 2 and 4, best and last at the end"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "maximum"}, "mode is not known"),
        ({"interval_by": "hour"}, "interval_by is not known"),
        ({"save_interval": 0}, "save_interval is below 1"),
    ],
)
def test_bad_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Checkpoint(context=make_context(tmp_path), **options)


def test_an_unknown_metric_is_found_before_the_first_step(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    checkpoint = Checkpoint(monitor_metric_key="neer", context=context)
    with pytest.raises(ConfigError, match="did you mean 'near'") as error:
        make_trainer(context, callbacks=[checkpoint]).fit()
    assert error.value.allowed == "near, dist"
    assert not checkpoint.path("last").exists()
