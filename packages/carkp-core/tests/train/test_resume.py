"""A run that is stopped and resumed ends bit for bit as one that was never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from train_toys import SpotModel, make_context, make_trainer, spot_loader

from carkp_core.errors import CheckpointError
from carkp_core.train.callbacks.checkpoint import Checkpoint
from carkp_core.train.checkpoint import read_checkpoint
from carkp_core.train.metrics import LossShow

TOYS = Path(__file__).with_name("train_toys.py")


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two checkpoints differ, to the bit."""
    if isinstance(a, Tensor):
        return [] if isinstance(b, Tensor) and torch.equal(a, b) else [place]
    if isinstance(a, dict):
        if not isinstance(b, dict) or list(a) != list(b):
            return [place]
        return [d for key in a for d in differences(a[key], b[key], f"{place}.{key}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [place]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{place}[{i}]")]
    return [] if a == b else [place]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    make_trainer(make_context(folder)).fit()
    return {which: read_checkpoint(folder / f"float-checkpoint-{which}.pth.tar") for which in ("best", "last")}


@pytest.mark.parametrize(
    ("number", "workers", "whole_group"),
    [(signal.SIGINT, 0, False), (signal.SIGTERM, 2, False), (signal.SIGINT, 2, True)],
    ids=["ctrl-c", "sigterm-workers", "ctrl-c-at-a-terminal-with-workers"],
)
def test_a_stopped_process_resumes_bit_equal(
    tmp_path: Path,
    process_env: dict[str, str],
    uninterrupted: dict[str, dict[str, Any]],
    number: signal.Signals,
    workers: int,
    whole_group: bool,
) -> None:
    command = [sys.executable, str(TOYS), str(tmp_path), f"workers={workers}", "delay_s=0.05"]
    with open(tmp_path / "stderr.txt", "w") as errors:
        process = subprocess.Popen(
            command, env=process_env, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        log = tmp_path / "runs" / "float-0" / "metrics.jsonl"
        waited_until = time.monotonic() + 120
        while not log.exists() or '"step": 8,' not in log.read_text():
            assert process.poll() is None, (tmp_path / "stderr.txt").read_text()
            assert time.monotonic() < waited_until
            time.sleep(0.02)
        os.killpg(process.pid, number) if whole_group else process.send_signal(number)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "go on with --resume" in said
    stopped = read_checkpoint(tmp_path / "float-checkpoint-last.pth.tar")
    assert 8 <= stopped["step"] < 18
    assert "Traceback" not in (tmp_path / "stderr.txt").read_text()

    make_trainer(make_context(tmp_path, resume=True), workers=workers).fit()
    for which in ("best", "last"):
        resumed = read_checkpoint(tmp_path / f"float-checkpoint-{which}.pth.tar")
        assert differences(uninterrupted[which], resumed) == []


def stop_after(steps: int) -> type[Checkpoint]:
    """A callback that asks its own process to stop after some steps."""

    class Stopper(Checkpoint):
        def on_step_end(self, training: Any, result: Any) -> None:
            if training.step == steps:
                os.kill(os.getpid(), signal.SIGTERM)

    return Stopper


@pytest.mark.parametrize("steps", [1, 6, 7, 18])
def test_every_place_to_stop_resumes_bit_equal(
    tmp_path: Path, uninterrupted: dict[str, dict[str, Any]], steps: int
) -> None:
    context = make_context(tmp_path)
    trainer = make_trainer(context)
    trainer.callbacks[-1] = stop_after(steps)(context=context)
    with pytest.raises(KeyboardInterrupt) as stop:
        trainer.fit()
    assert stop.value.exit_status == 143  # type: ignore[attr-defined]
    resumed = make_trainer(attrs.evolve(context, resume=True))
    resumed.callbacks[-1] = stop_after(0)(context=context)
    resumed.fit()
    last = read_checkpoint(context.checkpoint("float", "last"))
    last["training"]["callbacks"][-1][0] = "Checkpoint"
    assert differences(uninterrupted["last"], last) == []


def test_a_stop_during_validation_validates_after_the_resume(
    tmp_path: Path, uninterrupted: dict[str, dict[str, Any]]
) -> None:
    context = make_context(tmp_path)
    trainer = make_trainer(context)
    metric = trainer.val_metrics[0]
    update = metric.update
    metric.update = lambda batch, output: (os.kill(os.getpid(), signal.SIGINT), update(batch, output))
    with pytest.raises(KeyboardInterrupt, match="epoch 1 of 3, step 6 of 6"):
        trainer.fit()
    make_trainer(attrs.evolve(context, resume=True)).fit()
    assert differences(uninterrupted["last"], read_checkpoint(context.checkpoint("float", "last"))) == []


def test_a_longer_plan_goes_on_where_the_shorter_ended(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    make_trainer(context, num_epochs=1).fit()
    trainer = make_trainer(attrs.evolve(context, resume=True), num_epochs=2)
    trainer.fit()
    last = read_checkpoint(context.checkpoint("float", "last"))
    assert (last["epoch"], last["step"]) == (2, 12)
    assert [record["epoch"] for record in last["training"]["history"]] == [0, 1]


def test_resume_without_a_checkpoint_starts_from_the_beginning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_trainer(make_context(tmp_path, resume=True), num_epochs=1).fit()
    assert "nothing to resume" in capfd.readouterr().err


def test_another_batch_size_within_an_epoch_is_refused(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    trainer = make_trainer(context)
    trainer.callbacks[-1] = stop_after(2)(context=context)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    resumed = make_trainer(attrs.evolve(context, resume=True), data_loader=spot_loader(batch=8))
    with pytest.raises(CheckpointError, match="batches are not the same") as error:
        resumed.fit()
    assert error.value.seen == "steps in an epoch 6, now 3"


def test_weights_alone_cannot_be_resumed_from(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    make_trainer(context, num_epochs=1).fit()
    context.checkpoint("float", "best").rename(context.checkpoint("float", "last"))
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        make_trainer(attrs.evolve(context, resume=True)).fit()


def test_another_network_is_refused_with_the_names_that_differ(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    make_trainer(context, num_epochs=1).fit()
    trainer = make_trainer(attrs.evolve(context, resume=True), model=SpotModel(norm=False))
    with pytest.raises(CheckpointError, match="another network") as error:
        trainer.fit()
    assert "unexpected (network.1.weight" in str(error.value.seen)


def test_metrics_of_a_part_epoch_are_kept(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    trainer = make_trainer(context, train_metrics=[LossShow()])
    trainer.callbacks[-1] = stop_after(3)(context=context)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    progress = read_checkpoint(context.checkpoint("float", "last"))["training"]
    assert progress["step_in_epoch"] == 3
    assert int(progress["processes"][0]["metrics"][0]["samples"]) == 12
