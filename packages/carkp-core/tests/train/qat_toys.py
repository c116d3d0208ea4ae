"""QAT on the tiny task of ``train_toys``.

Run as a script it trains: ``python qat_toys.py DIR MODE OBSERVER [key=value ...]``; torchrun starts two of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from train_toys import make_context, make_trainer

from carkp_core.quant.converters import Float2QAT
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.checkpoint import Checkpoint
from carkp_core.train.convert import ModelConvertPipeline
from carkp_core.train.schedules import CosLrUpdater
from carkp_core.train.trainer import Trainer


class SpotNetwork(nn.Sequential):
    """Convolutions to a position; batch norm behind the first."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 16, 2),
        )


class QuantizedSpotModel(nn.Module):
    """Predicts (x, y)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SpotNetwork()

    def forward(self, data: dict[str, Any]) -> Any:
        xy = self.network(data["img"]) * 8
        if self.training:
            return xy, nn.functional.mse_loss(xy / 8, data["gt_xy"] / 8)
        return xy


def make_qat_trainer(
    folder: Path, mode: str, observer: str, *callbacks: Callback, resume: bool = False, **changes: Any
) -> Trainer:
    """A trainer of the quantized network, which takes its first scales from the first batch."""
    context = make_context(folder, stage="qat", resume=resume, example_inputs=lambda: {"img": torch.zeros(1, 1, 8, 8)})
    params: dict[str, Any] = {"activation_qat_observer": observer}
    if observer == "learned":
        params["weight_qat_observer"] = "learned"
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "model": QuantizedSpotModel(),
        "model_convert_pipeline": ModelConvertPipeline([Float2QAT(context=context)], mode, params),
        "optimizer": lambda params: torch.optim.SGD(params, lr=0.02, momentum=0.9, weight_decay=1e-4),
        "callbacks": [CosLrUpdater(), *callbacks, Checkpoint(context=context)],
        "val_metrics": [],
        "num_epochs": 2,
    }
    return make_trainer(context, **(given | changes))


def main(folder: str, mode: str, observer: str) -> None:
    """Train in this process; leave the state of each."""
    torch.set_num_threads(1)
    states = []

    class Keep(Callback):
        def on_train_end(self, training: Any) -> None:
            states.append((training.environment.world.rank, training.model.state_dict()))

    make_qat_trainer(Path(folder), mode, observer, Keep(), sync_bn=True).fit()
    ((rank, state),) = states
    torch.save(state, Path(folder) / f"rank{rank}.pth")


if __name__ == "__main__":
    main(*sys.argv[1:])
