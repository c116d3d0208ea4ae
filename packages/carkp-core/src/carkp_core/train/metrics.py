"""Metrics: what the loop and ``predict`` need of them, and the metric of training losses.

Metrics live with what they measure (keypoint metrics in carkp_carfusion); here are only the contract and the exchange
between processes, which is exact because a metric's state is a sum over samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from carkp_core.train.collate import batch_samples
from carkp_core.train.distributed import World


@runtime_checkable
class Metric(Protocol):
    """An accumulator over samples."""

    name: str

    def update(self, batch: Any, output: Any) -> None:
        """Count a batch and the model's answer to it; write into neither."""

    def compute(self) -> dict[str, float]:
        """Return the values by name, NaN when nothing was counted. The first is the one that chooses ``best``."""

    def reset(self) -> None:
        """Forget everything counted."""

    def state(self) -> dict[str, Tensor]:
        """Return float64 or int64 tensors whose sum over processes is the state of their joint samples."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state."""


@runtime_checkable
class ReportMetric(Metric, Protocol):
    """A metric that ``predict`` can print and draw more of. A metric offers such through ``companions()``."""

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Return one row per part (keypoint), with equal keys."""

    def draw_worst(self, dataset: Any, path: Path) -> None:
        """Draw the samples with the largest errors as one picture."""


#: ``update(metrics, batch, output)``: how a batch is counted.
UpdateFunction = Callable[[Sequence[Any], Any, Any], None]


def update_metric(metrics: Sequence[Any], batch: Any, output: Any) -> None:
    """Count a batch in every metric."""
    for metric in metrics:
        metric.update(batch, output)


def update_loss(metrics: Sequence[Any], batch: Any, output: Any) -> None:
    """Count a training batch's loss in every metric."""
    update_metric(metrics, batch, output)


class LossShow:
    """The mean training loss over an epoch's samples.

    Parameters
    ----------
    name:
        Its name in logs.
    index:
        Where the model's answer, a tuple, holds the loss: a tensor, or a dict of tensors, which are shown one by one
        beside their sum.
    """

    def __init__(self, name: str = "loss", index: int = 1) -> None:
        self.name = name
        self.index = index
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._sums: dict[str, float] = {self.name: 0.0}
        self._samples = 0

    def update(self, batch: Any, output: Any = None) -> None:
        """Count a batch; called with one argument, it is the loss itself and counts as one sample."""
        losses = batch if output is None else output
        samples = 1 if output is None else batch_samples(batch)
        if isinstance(losses, (tuple, list)):
            losses = losses[self.index]
        parts = {f"{self.name}_{k}": float(v.mean()) for k, v in losses.items()} if isinstance(losses, Mapping) else {}
        total = sum(parts.values()) if parts else float(torch.as_tensor(losses).float().mean())
        for key, value in ({self.name: total} | parts).items():
            self._sums[key] = self._sums.get(key, 0.0) + value * samples
        self._samples += samples

    def compute(self) -> dict[str, float]:
        """Return the means, NaN before the first batch."""
        return {k: v / self._samples if self._samples else float("nan") for k, v in self._sums.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the sums and the count."""
        named = {key: torch.tensor(value, dtype=torch.float64) for key, value in self._sums.items()}
        return {"samples": torch.tensor(self._samples, dtype=torch.int64), **named}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over sums and count."""
        self._samples = int(state["samples"])
        self._sums = {key: float(value) for key, value in state.items() if key != "samples"}


def reduced(metrics: Iterable[Any], world: World) -> dict[str, float]:
    """Return the values over the samples of all processes; afterwards every process's metrics hold the joint state.

    Of two metrics that name a value alike, the first counts.
    """
    values: dict[str, float] = {}
    for metric in metrics:
        if world.size > 1:
            metric.load_state({key: world.sum(tensor) for key, tensor in sorted(metric.state().items())})
        for key, value in metric.compute().items():
            values.setdefault(key, float(value))
    return values
