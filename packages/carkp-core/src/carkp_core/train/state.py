"""Where a run stands: the plan, and the state that callbacks look at and checkpoints keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, frozen
from torch import nn

from carkp_core.train.environment import Environment

if TYPE_CHECKING:
    from carkp_core.train.callbacks.base import Callback


@frozen
class Plan:
    """How long a run is. A step is one update of the weights."""

    epochs: int
    steps_per_epoch: int
    steps: int

    @classmethod
    def of(cls, num_epochs: int | None, num_steps: int | None, steps_per_epoch: int) -> Plan:
        """Plan a number of epochs, or of steps if that is given."""
        if num_steps is not None:
            return cls(-(-num_steps // max(steps_per_epoch, 1)), steps_per_epoch, num_steps)
        epochs = num_epochs or 0
        return cls(epochs, steps_per_epoch, epochs * steps_per_epoch)

    def steps_in(self, epoch: int) -> int:
        """Return the number of steps of an epoch; the last may be shorter when steps were planned."""
        return max(0, min(self.steps_per_epoch, self.steps - epoch * self.steps_per_epoch))


@define(eq=False)
class Training:
    """A run in progress: what is being trained, where it stands and what it has seen."""

    environment: Environment
    #: The task model itself; ``replica`` is what is called in training, wrapped when processes share the run.
    model: nn.Module
    plan: Plan
    callbacks: tuple[Callback, ...] = ()
    replica: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
    train_metrics: Sequence[Any] = ()
    val_metrics: Sequence[Any] = ()
    #: Checkpoints that the model started from.
    sources: list[dict[str, str]] = field(factory=list)

    #: Epochs done, steps done in the present one, and in all.
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    #: The latest validation's metrics, and the epoch it belongs to.
    metrics: dict[str, float] = field(factory=dict)
    validated_epoch: int | None = None
    #: The best value of the monitored metric, and the metrics that came with it.
    best_metrics: dict[str, float] = field(factory=dict)
    #: One record an epoch, and (step, loss, learning rate) at every logged step.
    history: list[dict[str, float]] = field(factory=list)
    losses: list[tuple[int, float, float]] = field(factory=list)

    @property
    def learning_rate(self) -> float:
        """The first parameter group's learning rate; NaN without an optimizer."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else float("nan")

    @property
    def network(self) -> nn.Module:
        """The part of the model that is deployed."""
        return getattr(self.model, "network", self.model)

    @property
    def dir(self) -> Path:
        """The run's folder."""
        assert self.environment.run is not None
        return self.environment.run.dir

    @property
    def place(self) -> str:
        """Say where the run stands."""
        if self.epoch >= self.plan.epochs:
            return f"all {self.plan.epochs} epochs done"
        done = f"step {self.step_in_epoch} of {self.plan.steps_in(self.epoch)}"
        return f"epoch {self.epoch + 1} of {self.plan.epochs}, {done}"

    def log(self, values: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``: the epoch, counted from 1, the steps done, and the values."""
        self.environment.log({"epoch": self.epoch + 1, "step": self.step, **values})

    def notify(self, event: str, *arguments: Any) -> None:
        """Call a method of every callback, in the config's order."""
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)
