"""Training quantized networks: two processes, and runs that are stopped and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from qat_toys import make_qat_trainer
from torch import Tensor
from train_toys import spot_loader

from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.freeze_quantization import FreezeQuantization
from carkp_core.train.checkpoint import read_checkpoint

TOYS = Path(__file__).with_name("qat_toys.py")


def torchrun(*arguments: str) -> list[str]:
    """The command that starts two processes on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]


@pytest.mark.parametrize(("mode", "observer"), [("with_bn", "learned"), ("fuse_bn", "moving_average")])
def test_two_processes_train_as_one_on_the_joint_batch(
    tmp_path: Path, process_env: dict[str, str], mode: str, observer: str
) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    command = torchrun(str(TOYS), str(folder), mode, observer)
    done = subprocess.run(command, env=process_env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in range(2)]
    alone = tmp_path / "one"
    make_qat_trainer(alone, mode, observer, data_loader=spot_loader(batch=8)).fit()
    joint = read_checkpoint(alone / "qat-checkpoint-last.pth.tar")["model"]
    for name, value in joint.items():
        if not isinstance(value, Tensor):
            continue
        if "scale" in name:
            assert torch.equal(ranks[0][name], ranks[1][name]), name
        # A sum that lands on the other side of one half makes a step of difference, so bits cannot agree.
        torch.testing.assert_close(ranks[0][name], value, rtol=5e-3, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


class StopAfter(Callback):
    """Asks its own process to stop after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, training: Any, result: Any) -> None:
        if training.step == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("observer", ["learned", "moving_average"])
@pytest.mark.parametrize("steps", [2, 9, 22])
def test_a_stopped_run_resumes_bit_equal(tmp_path: Path, observer: str, steps: int) -> None:
    """Before anything is frozen, when batch norm is, and when the scales are too; one look at the ranges behind."""

    def run(folder: Path, *callbacks: Callback, resume: bool = False) -> dict[str, Any]:
        freeze = FreezeQuantization(bn_epoch=0.25, scale_step=20)
        trainer = make_qat_trainer(folder, "with_bn", observer, freeze, *callbacks, resume=resume)
        trainer.data_loader = spot_loader(count=64)
        trainer.fit()
        return read_checkpoint(folder / "qat-checkpoint-last.pth.tar")

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", StopAfter(steps))
    parts = run(tmp_path / "parts", resume=True)
    assert whole["model"].keys() == parts["model"].keys()
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]) if isinstance(value, Tensor) else value == parts["model"][name]
    assert whole["step"] == parts["step"] == 32
