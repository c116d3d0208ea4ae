from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from train_toys import Near, SpotModel, make_context, make_trainer, spot_loader

from carkp_core.errors import CheckpointError, ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.metric_updater import MetricUpdater
from carkp_core.train.callbacks.validation import Validation


class Epochs(Callback):
    """Notes the epochs that were validated, and whether the model was in training mode again after it."""

    def __init__(self) -> None:
        self.validated: list[int] = []

    def on_epoch_end(self, training: Any) -> None:
        if training.validated_epoch == training.epoch:
            self.validated.append(training.epoch)
        assert training.model.training


@pytest.mark.parametrize(
    ("options", "epochs"),
    [({}, [0, 1, 2]), ({"val_interval": 2}, [1, 2]), ({"val_interval": 2, "val_on_train_end": False}, [1])],
)
def test_intervals(tmp_path: Path, options: dict[str, Any], epochs: list[int]) -> None:
    context, noted = make_context(tmp_path), Epochs()
    validation = Validation(spot_loader(6, shuffle=False), **options)
    make_trainer(context, callbacks=[validation, noted], data_loader=spot_loader(4, 4)).fit()
    assert noted.validated == epochs


def test_its_callbacks_see_each_batch_and_may_count_in_their_own_way(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    seen: list[tuple[int, int]] = []

    class Look(Callback):
        def on_evaluated(self, evaluated: Any) -> None:
            seen.append((evaluated.number, len(evaluated.output)))

    def everything_is_near(metrics: Any, batch: Any, output: Any) -> None:
        for metric in metrics:
            metric.update(batch, batch["gt_xy"])

    callbacks = [Look(), MetricUpdater(everything_is_near)]
    validation = Validation(spot_loader(10, shuffle=False), callbacks=callbacks)
    metrics = make_trainer(context, callbacks=[validation], num_epochs=1).fit()
    assert seen == [(0, 4), (1, 4), (2, 2)]
    assert metrics == {"near": 1.0, "dist": 0.0}


def test_a_model_of_its_own(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    own = SpotModel()
    validation = Validation(spot_loader(4), val_model=own)
    trainer = make_trainer(context, callbacks=[validation], num_epochs=1)
    trainer.fit()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(own.state_dict()[name], value)
    other = Validation(spot_loader(4), val_model=SpotModel(norm=False))
    with pytest.raises(CheckpointError, match="another network"):
        make_trainer(context, callbacks=[other], num_epochs=1).fit()
    left = Validation(spot_loader(4), val_model=SpotModel(norm=False), init_with_train_model=False)
    make_trainer(context, callbacks=[left], num_epochs=1, val_metrics=[Near()]).fit()


def test_bad_interval() -> None:
    with pytest.raises(ConfigError, match="val_interval"):
        Validation(spot_loader(4), val_interval=0)
