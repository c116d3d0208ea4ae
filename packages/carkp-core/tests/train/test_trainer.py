"""The loop and the trainer around it, on a real tiny task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_toys import SpotModel, Spots, make_context, make_trainer, spot_loader

from carkp_core.errors import CarkpError, ConfigError
from carkp_core.hookspecs import hookimpl
from carkp_core.plugins import plugin_manager
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.checkpoint import Checkpoint
from carkp_core.train.checkpoint import read_checkpoint
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.state import Plan
from carkp_core.train.trainer import Trainer, distributed_data_parallel_trainer


def test_it_learns_and_leaves_its_records(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    trainer = make_trainer(
        context,
        dropout=0,
        num_epochs=12,
        data_loader=spot_loader(64, 8),
        callbacks=[Checkpoint(context=context)],
        val_metrics=[],
    )
    assert isinstance(trainer, distributed_data_parallel_trainer)
    trainer.fit()
    records = [json.loads(line) for line in (tmp_path / "runs" / "float-0" / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 13))
    assert records[-1]["loss"] < 0.3 * records[0]["loss"]
    assert (tmp_path / "runs" / "float-0" / "curves.png").stat().st_size > 1000
    assert {path.name for path in tmp_path.iterdir()} == {
        "runs",
        "float-checkpoint-best.pth.tar",
        "float-checkpoint-last.pth.tar",
    }


def test_equal_seeds_give_equal_runs_and_a_second_folder(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    make_trainer(context, num_epochs=1).fit()
    first = read_checkpoint(context.checkpoint("float", "last"))["model"]
    make_trainer(context, num_epochs=1).fit()
    again = read_checkpoint(context.checkpoint("float", "last"))["model"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["float-0", "float-1"]


def test_steps_in_place_of_epochs(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    make_trainer(context, num_epochs=None, num_steps=8).fit()
    last = read_checkpoint(context.checkpoint("float", "last"))
    assert (last["epoch"], last["step"]) == (2, 8)
    assert Plan.of(None, 8, 6) == Plan(2, 6, 8)
    assert [Plan(2, 6, 8).steps_in(epoch) for epoch in range(3)] == [6, 2, 0]


def test_accumulation_counts_updates(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    processor = MultiBatchProcessor(grad_accumulation_step=4)
    make_trainer(context, num_epochs=1, batch_processor=processor).fit()
    assert read_checkpoint(context.checkpoint("float", "last"))["step"] == 2


class Watcher:
    """A plugin that watches runs."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @hookimpl
    def carkp_run_started(self, run: Any) -> None:
        self.seen.append(("started", run.stage, run.dir.is_dir()))

    @hookimpl
    def carkp_epoch_finished(self, run: Any, epoch: int, metrics: dict[str, float]) -> None:
        self.seen.append((epoch, sorted(metrics)))

    @hookimpl
    def carkp_run_finished(self, run: Any, error: BaseException | None) -> None:
        self.seen.append(("finished", type(error).__name__))


class Fails(Callback):
    def on_step_end(self, training: Any, result: Any) -> None:
        raise RuntimeError("broken callback")


def test_plugins_are_told_of_runs_also_of_their_failures(tmp_path: Path) -> None:
    plugins, watcher = plugin_manager(load_installed=False), Watcher()
    plugins.register(watcher)
    make_trainer(make_context(tmp_path, plugins), num_epochs=2).fit()
    names = ["dist", "loss", "near"]
    assert watcher.seen == [("started", "float", True), (0, names), (1, names), ("finished", "NoneType")]
    watcher.seen.clear()
    with pytest.raises(RuntimeError, match="broken callback"):
        make_trainer(make_context(tmp_path, plugins), callbacks=[Fails()]).fit()
    assert watcher.seen == [("started", "float", True), ("finished", "RuntimeError")]


class Explodes(SpotModel):
    """Its loss is not finite from the fourth step on."""

    steps = 0

    def forward(self, data: dict[str, Any]) -> Any:
        self.steps += self.training
        output = super().forward(data)
        return (output[0], output[1] * math.inf) if self.training and self.steps > 3 else output


def test_a_loss_that_is_not_finite_names_the_step_and_spares_the_weights(tmp_path: Path) -> None:
    trainer = make_trainer(make_context(tmp_path), model=Explodes(), data_loader=spot_loader(8, 4))
    with pytest.raises(CarkpError, match="the loss is inf") as error:
        trainer.fit()
    assert error.value.where == "epoch 2, step 2 of the epoch (4 in all)"
    assert "lower the learning rate" in str(error.value.remedy)
    assert all(p.isfinite().all() for p in trainer.model.parameters())


class Order(Callback):
    """Notes every place that it is called at."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            self.calls.append(name)
        return super().__getattribute__(name)


def test_callbacks_are_called_in_the_documented_order(tmp_path: Path) -> None:
    order = Order()
    make_trainer(make_context(tmp_path), callbacks=[order], num_epochs=1, data_loader=spot_loader(8, 4)).fit()
    step = ["on_step_begin", "on_gradients", "on_step_end"]
    ends = ["on_epoch_end", "on_checkpoint", "on_train_end"]
    assert order.calls == ["on_train_begin", "on_epoch_begin", *step, *step, *ends]


def test_without_training_it_converts_validates_and_saves_both(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    trainer = make_trainer(context, num_epochs=0, optimizer=None, data_loader=None)
    metrics = trainer.fit()
    best, last = (read_checkpoint(context.checkpoint("float", which)) for which in ("best", "last"))
    assert best["metrics"] == last["metrics"] == metrics
    assert sorted(metrics) == ["dist", "near"]
    assert "training" not in last


class Told(torch.utils.data.Dataset[dict[str, Any]]):
    """A data set that is told the epoch and cannot be addressed by it."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def __len__(self) -> int:
        return 4

    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return Spots()[index]


def test_data_sets_are_told_the_epoch(tmp_path: Path) -> None:
    dataset = Told()
    loader = torch.utils.data.DataLoader(dataset, batch_size=2)
    make_trainer(make_context(tmp_path), data_loader=loader, num_epochs=2).fit()
    assert dataset.told == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_epochs": 1, "num_steps": 3}, "num_epochs and num_steps"),
        ({"num_epochs": -1}, "num_epochs is not a whole number"),
        ({"num_epochs": 1.5}, "num_epochs is not a whole number"),
    ],
)
def test_bad_lengths(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_trainer(make_context(tmp_path), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_loader": None}, "needs data_loader"),
        ({"optimizer": None}, "needs an optimizer"),
        ({"batch_processor": MultiBatchProcessor(need_grad_update=False)}, "need_grad_update=False"),
    ],
)
def test_missing_parts(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_trainer(make_context(tmp_path), **changes).fit()


def test_a_trainer_without_a_checkpoint_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Trainer(nn.Linear(1, 1), callbacks=[], num_epochs=0, context=make_context(tmp_path)).fit()
    assert "nothing will be saved" in capfd.readouterr().err


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs data_loader"):
        make_trainer(make_context(tmp_path), data_loader=None).fit()
    assert list((tmp_path / "runs").iterdir()) == []
