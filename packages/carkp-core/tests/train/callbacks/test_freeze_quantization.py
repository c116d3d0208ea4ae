from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from qat_toys import make_qat_trainer
from train_toys import make_context, make_trainer, spot_loader

from carkp_core.errors import ConfigError
from carkp_core.quant.learned_scale import learned_scales
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.freeze_quantization import FreezeQuantization


class Watch(Callback):
    """Scales, batch norm's mean, and a weight after each step."""

    def __init__(self) -> None:
        self.scales: list[list[float]] = []
        self.means: list[torch.Tensor] = []
        self.weights: list[torch.Tensor] = []

    def on_step_end(self, training: Any, result: Any) -> None:
        layers = dict(training.network.scaled_layers())
        self.scales.append([float(layer.scale.detach()) for layer in layers.values()])
        self.means.append(layers["0"].bn.running_mean.clone())
        self.weights.append(layers["0"].weight.detach().clone())


def last_change(values: list[Any]) -> int:
    """The number of the last step that changed a value; steps count from 1."""
    pairs = itertools.pairwise(values)
    changed = [n for n, (a, b) in enumerate(pairs, 2) if not (torch.equal(a, b) if torch.is_tensor(a) else a == b)]
    return max(changed, default=0)


@pytest.mark.parametrize("observer", ["learned", "moving_average"])
def test_batch_norm_and_scales_freeze_at_their_places(tmp_path: Path, observer: str) -> None:
    watch = Watch()
    freeze = FreezeQuantization(bn_epoch=0.5, scale_step=18)
    trainer = make_qat_trainer(tmp_path, "with_bn", observer, freeze, watch, data_loader=spot_loader(count=96))
    trainer.fit()
    assert len(watch.scales) == 48
    assert last_change(watch.means) == 12
    assert last_change(watch.scales) == (18 if observer == "learned" else 17)
    assert last_change(watch.weights) == 48


def test_frozen_batch_norm_trains_with_what_evaluation_computes(tmp_path: Path) -> None:
    found = []

    class Compare(Callback):
        def on_step_end(self, training: Any, result: Any) -> None:
            x = result.batches[0]["img"]
            with torch.no_grad():
                trained = training.network(x)
                evaluated = training.network.eval()(x)
            training.network.train()
            found.append(torch.equal(trained, evaluated))

    freeze = FreezeQuantization(bn_step=2)
    make_qat_trainer(tmp_path, "with_bn", "learned", freeze, Compare(), num_epochs=1).fit()
    assert found[0] is False
    assert found[2:] == [True] * 4


def test_nothing_is_frozen_unless_asked(tmp_path: Path) -> None:
    watch = Watch()
    trainer = make_qat_trainer(tmp_path, "with_bn_reverse_fold", "learned", FreezeQuantization(), watch)
    trainer.fit()
    assert last_change(watch.scales) == last_change(watch.means) == 12
    assert len(learned_scales(trainer.model)) == 7


def test_a_stage_that_trains_nothing_may_have_it(tmp_path: Path) -> None:
    trainer = make_trainer(make_context(tmp_path), callbacks=[FreezeQuantization(bn_epoch=0)], num_epochs=0)
    trainer.fit()


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bn_epoch and bn_step"):
        FreezeQuantization(bn_epoch=1, bn_step=2)
    with pytest.raises(ConfigError, match="scale_step is negative"):
        FreezeQuantization(scale_step=-1)
    with pytest.raises(ConfigError, match="for training a quantized network") as caught:
        make_trainer(make_context(tmp_path), callbacks=[FreezeQuantization(bn_epoch=1)]).fit()
    assert caught.value.seen == "Sequential"
