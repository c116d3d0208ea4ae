from __future__ import annotations

from types import SimpleNamespace

from carkp_core.train.callbacks.checkpoint import Checkpoint


def test_without_metrics_every_validated_epoch_is_the_best(tmp_path):
    callback = Checkpoint(context=SimpleNamespace(stage="float", ckpt_dir=tmp_path))
    training = SimpleNamespace(val_metrics=[], validated_epoch=0, epoch=1, metrics={})
    assert callback._is_best(training)


def test_a_prefix_that_names_another_stage_gives_way(tmp_path):
    context = SimpleNamespace(stage="calibration", ckpt_dir=tmp_path)
    assert Checkpoint(name_prefix="float-", context=context).path("best").name == "calibration-checkpoint-best.pth.tar"
    assert Checkpoint(name_prefix="mine-", context=context).path("best").name == "mine-checkpoint-best.pth.tar"
