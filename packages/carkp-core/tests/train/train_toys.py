"""A tiny task, for the training room's tests: find the bright spot of an 8x8 image.

Run as a script it trains: ``python train_toys.py DIR [key=value ...]``; tests start, stop and resume it in processes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from carkp_core.catalog import Catalog, Component
from carkp_core.context import Context
from carkp_core.plugins import PluginManager, plugin_manager
from carkp_core.train.callbacks.checkpoint import Checkpoint
from carkp_core.train.callbacks.stats_monitor import StatsMonitor
from carkp_core.train.callbacks.validation import Validation
from carkp_core.train.metrics import LossShow
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.schedules import CosLrUpdater
from carkp_core.train.trainer import Trainer


class Spots(Dataset[dict[str, Any]]):
    """Images [1, 8, 8] with one bright pixel and noise; the target is its (x, y). Noise differs by epoch."""

    def __init__(self, count: int = 24, seed: int = 0, delay_s: float = 0.0) -> None:
        self.count, self.seed, self.delay_s = count, seed, delay_s

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.replay(index, 0)

    def replay(self, index: int, epoch: int) -> dict[str, Any]:
        time.sleep(self.delay_s)
        spot = np.random.default_rng((self.seed, 0, index)).integers(0, 8, 2)
        img = np.random.default_rng((self.seed, epoch, index)).normal(0, 0.1, (1, 8, 8)).astype(np.float32)
        img[0, spot[1], spot[0]] += 1
        return {"img": img, "gt_xy": spot.astype(np.float32), "index": index, "img_name": f"{index}.png"}


class SpotModel(nn.Module):
    """Predicts (x, y) in eighths; dropout makes a run depend on the global generator."""

    def __init__(self, norm: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=not norm),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(8 * 64, 2),
        )

    def forward(self, data: dict[str, Any]) -> Any:
        xy = self.network(data["img"]) * 8
        if self.training:
            return xy, nn.functional.mse_loss(xy / 8, data["gt_xy"] / 8)
        return xy


class Near:
    """Share of samples whose answer is closer than 2 pixels, and the mean distance."""

    name = "near"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._hits, self._count, self._steps = 0, 0, 0

    def update(self, batch: dict[str, Any], output: Tensor) -> None:
        distance = (output - batch["gt_xy"]).norm(dim=1)
        self._hits += int((distance < 2).sum())
        self._count += len(distance)
        self._steps += int((distance.double() * 2**20).round().sum())

    def compute(self) -> dict[str, float]:
        if not self._count:
            return {"near": float("nan"), "dist": float("nan")}
        return {"near": self._hits / self._count, "dist": self._steps / 2**20 / self._count}

    def state(self) -> dict[str, Tensor]:
        return {"counts": torch.tensor([self._hits, self._count, self._steps], dtype=torch.int64)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._hits, self._count, self._steps = (int(v) for v in state["counts"])


def make_context(folder: Path, plugins: PluginManager | None = None, **changes: Any) -> Context:
    """A context of core alone."""
    plugins = plugins or plugin_manager(load_installed=False)
    components = [*plugins.catalog().of_kind("callback"), Component("model", "Spot", "train_toys:SpotModel")]
    given: dict[str, Any] = {"march": "bayes", "task": "toy", "ckpt_dir": folder, "stage": "float", "seed": 3}
    return Context(plugins=plugins, catalog=Catalog(components), backends=(), **(given | changes))


def spot_loader(count: int = 24, batch: int = 4, shuffle: bool = True, workers: int = 0, delay_s: float = 0.0) -> Any:
    """A torch loader of spots."""
    return DataLoader(Spots(count, delay_s=delay_s), batch_size=batch, shuffle=shuffle, num_workers=workers)


def make_trainer(
    context: Context, workers: int = 0, delay_s: float = 0.0, dropout: float = 0.2, **changes: Any
) -> Trainer:
    """A trainer with everything a real one has."""
    torch.manual_seed(context.seed)
    model = changes.pop("model", None) or SpotModel(dropout=dropout)
    given: dict[str, Any] = {
        "data_loader": spot_loader(workers=workers, delay_s=delay_s),
        "optimizer": lambda params: torch.optim.AdamW(params, lr=0.01),
        "num_epochs": 3,
        "callbacks": [
            StatsMonitor(log_freq=2),
            CosLrUpdater(warmup_len=1, warmup_by="epoch"),
            Validation(spot_loader(10, shuffle=False), MultiBatchProcessor(need_grad_update=False)),
            Checkpoint(context=context),
        ],
        "train_metrics": [LossShow()],
        "val_metrics": [Near()],
    }
    return Trainer(model, **(given | changes), context=context)


def main(folder: str, *options: str) -> None:
    """Train in this process, as ``carkp train`` would."""
    torch.set_num_threads(1)
    given = dict(option.split("=") for option in options)
    context = make_context(Path(folder), resume=given.get("resume") == "1")
    trainer = make_trainer(
        context,
        workers=int(given.get("workers", "0")),
        delay_s=float(given.get("delay_s", "0")),
        num_epochs=int(given.get("epochs", "3")),
        sync_bn=given.get("sync_bn") == "1",
        dropout=float(given.get("dropout", "0.2")),
    )
    from carkp_core.train.interrupts import StoppedError

    try:
        metrics = trainer.fit()
    except StoppedError as stop:
        click.echo(stop.message)
        sys.exit(stop.exit_status)
    click.echo(json.dumps(metrics))


if __name__ == "__main__":
    main(*sys.argv[1:])
