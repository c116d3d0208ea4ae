"""``carkp train`` and ``carkp predict`` from a config file to exit status and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carkp_core.cli import run
from carkp_core.plugins import plugin_manager

TOYS = Path(__file__).parents[1] / "train"

CONFIG = """
import torch

task_name = "toy"
ckpt_dir = "models"
march = "bayes"
samples = 12
log_freq = 1

model = dict(type="train_toys.SpotModel")
data_loader = dict(
    type=torch.utils.data.DataLoader,
    dataset=dict(type="train_toys.Spots", count=samples),
    sampler=dict(type=torch.utils.data.DistributedSampler),
    batch_size=4, shuffle=True, num_workers=8, pin_memory=True, collate_fn="default_collate",
)
val_data_loader = dict(
    type=torch.utils.data.DataLoader,
    dataset=dict(type="train_toys.Spots", count=7),
    sampler=dict(type=torch.utils.data.DistributedSampler),
    batch_size=4, shuffle=False, num_workers=8, pin_memory=True,
)
val_metrics = [dict(type="train_toys.Near")]
val_processor = dict(type="MultiBatchProcessor", need_grad_update=False)

float_trainer = dict(
    type="distributed_data_parallel_trainer",
    model=model,
    model_convert_pipeline=dict(type="ModelConvertPipeline", converters=[]),
    data_loader=data_loader,
    optimizer=dict(type=torch.optim.AdamW, lr=0.01),
    batch_processor=dict(
        type="MultiBatchProcessor", need_grad_update=True, loss_collector=dict(type="collect_loss_by_index", indexes=1)
    ),
    num_epochs=2,
    device=None,
    callbacks=[
        dict(type="StatsMonitor", log_freq=log_freq),
        dict(type="MetricUpdater", metric_update_func="carkp_core.train.metrics.update_loss"),
        dict(type="CosLrUpdater", warmup_len=0, warmup_by="epoch", step_log_interval=100),
        dict(type="GradScale", module_and_scale=[("0", 0.5)], clip_grad_norm=5.0),
        dict(type="Validation", data_loader=val_data_loader, batch_processor=val_processor, val_interval=1),
        dict(type="Checkpoint", save_dir=ckpt_dir, strict_match=True, mode="max", monitor_metric_key="near"),
    ],
    train_metrics=[dict(type="LossShow")],
    sync_bn=True,
    val_metrics=val_metrics,
)

calibration_trainer = dict(
    type="Calibrator", model=model, data_loader=data_loader, batch_processor=val_processor, num_steps=3,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        converters=[dict(type="LoadCheckpoint", checkpoint_path="models/float-checkpoint-best.pth.tar")],
    ),
    val_metrics=val_metrics, log_interval=0.3,
)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(CONFIG)
    return tmp_path


def carkp(*arguments: str) -> int:
    return run(list(arguments), plugin_manager(load_installed=False))


def test_train_resume_and_predict(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert carkp("train", "--stage", "float", "--config", "toy.py", "--json", "train.json") == 0
    said = capfd.readouterr()
    assert said.err.count("data loaders: num_workers 8") == 1, "one notice for both loaders"
    assert "float: near" in said.out
    trained: dict[str, Any] = json.loads(Path("train.json").read_text())
    assert trained["stage"] == "float"
    assert trained["checkpoint"] == "models/float-checkpoint-best.pth.tar"

    more = ("--opts", "float_trainer.num_epochs=3", "--resume")
    assert carkp("train", "--stage", "float", "--config", "toy.py", *more) == 0
    assert "resumed from models/float-checkpoint-last.pth.tar: epoch 3 of 3" in capfd.readouterr().err

    options = ("--json", "predict.json", "--opts", "float_trainer.num_epochs=3")
    assert carkp("predict", "--stage", "float", "--config", "toy.py", *options) == 0
    assert "7 samples" in capfd.readouterr().out
    predicted = json.loads(Path("predict.json").read_text())
    assert (predicted["stage"], predicted["samples"]) == ("float", 7)
    assert list(predicted["metrics"]) == ["near", "dist"]


def test_equal_commands_give_equal_weights(folder: Path) -> None:
    import torch

    states = []
    for name in ("a", "b"):
        assert carkp("train", "--stage", "float", "--config", "toy.py", "--opts", f"ckpt_dir={name}") == 0
        states.append(torch.load(f"{name}/float-checkpoint-last.pth.tar", weights_only=True)["model"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_stage_out_of_order(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "predict"):
        stage = "calibration" if command == "train" else "float"
        assert carkp(command, "--stage", stage, "--config", "toy.py") == 2
        said = capfd.readouterr().err
        assert "there is no such checkpoint" in said
        assert "carkp train --stage float --config" in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("float_trainer.optimizer.lrr=1", "did you mean 'lr'"),
        ("float_trainer.num_epoch=1", "did you mean 'num_epochs'"),
        ("log_freq=0", "StatsMonitor"),
        ("samples=0", "too small for a single batch"),
    ],
)
def test_mistakes_are_named(folder: Path, capfd: pytest.CaptureFixture[str], option: str, message: str) -> None:
    assert carkp("train", "--stage", "float", "--config", "toy.py", "--opts", option) == 2
    assert message in capfd.readouterr().err


def test_an_unknown_stage(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert carkp("train", "--stage", "floot", "--config", "toy.py") == 2
    assert "int_infer" in capfd.readouterr().err


def test_torchrun_trains_and_predicts_with_two_processes(folder: Path) -> None:
    path = os.pathsep.join([str(TOYS), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "carkp_core"]
    common = ["--stage", "float", "--config", "toy.py"]
    for command in ("train", "predict"):
        done = subprocess.run(
            [*start, command, *common, "--json", f"{command}.json"],
            env=env,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("float:") == 1, "one process speaks"
    two = json.loads(Path("predict.json").read_text())
    assert two["samples"] == 7, "an odd number, none of them twice"
    assert carkp("predict", *common, "--json", "one.json") == 0
    assert json.loads(Path("one.json").read_text()) == two
