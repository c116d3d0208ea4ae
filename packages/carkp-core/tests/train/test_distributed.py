"""Two real processes train as one does on the joint batch, and evaluate exactly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from train_toys import make_context, make_trainer, spot_loader

from carkp_core.errors import ConfigError
from carkp_core.train.checkpoint import read_checkpoint
from carkp_core.train.distributed import World, choose_device, is_main_process, joined_world

TOYS = Path(__file__).with_name("train_toys.py")


def torchrun(*arguments: str) -> list[str]:
    """The command that starts two processes on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]


def metric_lines(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "runs" / "float-0" / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "near" in record]


def test_two_processes_train_as_one_on_the_joint_batch(tmp_path: Path, process_env: dict[str, str]) -> None:
    folder = tmp_path / "two"
    command = torchrun(str(TOYS), str(folder), "sync_bn=1", "dropout=0", "epochs=2")
    done = subprocess.run(command, env=process_env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (folder / "runs").iterdir()] == ["float-0"]

    alone = tmp_path / "one"
    make_trainer(make_context(alone), dropout=0, data_loader=spot_loader(batch=8), num_epochs=2).fit()
    two, one = (read_checkpoint(path / "float-checkpoint-last.pth.tar")["model"] for path in (folder, alone))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)
    for ours, joint in zip(metric_lines(folder), metric_lines(alone), strict=True):
        assert ours["loss"] == pytest.approx(joint["loss"], rel=1e-4)
        assert ours["dist"] == pytest.approx(joint["dist"], rel=1e-4)


def test_sigterm_stops_all_processes_at_one_step(tmp_path: Path, process_env: dict[str, str]) -> None:
    command = torchrun(str(TOYS), str(tmp_path), "delay_s=0.05", "epochs=20")
    process = subprocess.Popen(command, env=process_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "runs" / "float-0" / "metrics.jsonl"
    waited_until = time.monotonic() + 120
    while not log.exists() or '"step": 2,' not in log.read_text():
        assert process.poll() is None
        assert time.monotonic() < waited_until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said.count("go on with --resume") == 2
    progress = read_checkpoint(tmp_path / "float-checkpoint-last.pth.tar")["training"]
    assert len(progress["processes"]) == 2


def test_alone_every_exchange_is_the_identity() -> None:
    with joined_world() as world:
        assert world == World()
        assert world.is_main
        assert world.broadcast("x") == "x"
        assert world.gather(3) == [3]
        assert world.any(True)
        assert torch.equal(world.sum(torch.tensor([1, 2])), torch.tensor([1, 2]))
    assert is_main_process()


def test_devices() -> None:
    assert choose_device("cpu", World()) == torch.device("cpu")
    assert choose_device(["cpu"], World()) == torch.device("cpu")
    with pytest.raises(ConfigError, match="several devices"):
        choose_device([0, 1], World())
    with pytest.raises(ConfigError, match="unknown device"):
        choose_device("tpu9", World())
    if not torch.cuda.is_available():
        assert choose_device(None, World()) == torch.device("cpu")
        with pytest.raises(ConfigError, match="no GPU"):
            choose_device("cuda", World())
