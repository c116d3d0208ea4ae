"""Learning-rate schedules: pure functions of the step, and the callbacks that apply them.

Each is a factor on the optimizer's own learning rate, one per parameter group, so a resumed run needs nothing but its
step. ``done`` is the share of the steps after warm-up, in 0..1.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Literal

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.processors import StepResult
from carkp_core.train.state import Training

Unit = Literal["epoch", "step"]


def warm_up(step: int, warmup_steps: int) -> float:
    """Return the factor of a linear warm-up: ``1 / n`` at its first step of ``n``, 1 from its last step on."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def cosine(done: float) -> float:
    """Return half a cosine wave: 1 at the start, 0 at the end."""
    return 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


def polynomial(done: float, power: float) -> float:
    """Return ``(1 - done) ** power``."""
    return (1 - min(max(done, 0.0), 1.0)) ** power


class LrUpdater(Callback):
    """Set the learning rate before each step: warm-up first, then the schedule of the subclass.

    Parameters
    ----------
    warmup_len, warmup_by:
        Length of the linear warm-up, in epochs or steps.
    step_log_interval:
        Steps between two records of the learning rate in ``metrics.jsonl``; None for none.
    """

    def __init__(self, warmup_len: float = 0, warmup_by: Unit = "epoch", step_log_interval: int | None = None) -> None:
        if warmup_by not in ("epoch", "step"):
            raise ConfigError("warmup_by is not known", seen=repr(warmup_by), allowed="epoch or step")
        if warmup_len < 0:
            raise ConfigError("warmup_len is negative", seen=str(warmup_len))
        self.warmup_len = warmup_len
        self.warmup_by = warmup_by
        self.step_log_interval = step_log_interval

    def factor(self, step: int, training: Training) -> float:
        """Return the schedule's factor at a step, warm-up left aside."""
        raise NotImplementedError

    def warmup_steps(self, training: Training) -> int:
        """Return the length of the warm-up in steps."""
        per_unit = training.plan.steps_per_epoch if self.warmup_by == "epoch" else 1
        return round(self.warmup_len * per_unit)

    def done(self, step: int, training: Training) -> float:
        """Return the share of the steps after warm-up that lie before ``step``."""
        warmup = self.warmup_steps(training)
        return max(0, step - warmup) / max(1, training.plan.steps - warmup)

    def on_step_begin(self, training: Training) -> None:
        """Set every parameter group's learning rate."""
        assert training.optimizer is not None
        factor = warm_up(training.step, self.warmup_steps(training)) * self.factor(training.step, training)
        for group in training.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor

    def on_step_end(self, training: Training, result: StepResult) -> None:
        """Record the learning rate, where it is time."""
        if self.step_log_interval and training.step % self.step_log_interval == 0:
            training.log({"lr": training.learning_rate})


class CosLrUpdater(LrUpdater):
    """Half a cosine wave from the optimizer's learning rate down to ``stop_lr``, after warm-up."""

    def __init__(
        self,
        warmup_len: float = 0,
        warmup_by: Unit = "epoch",
        step_log_interval: int | None = None,
        stop_lr: float = 0.0,
    ) -> None:
        super().__init__(warmup_len, warmup_by, step_log_interval)
        self.stop_lr = stop_lr

    def factor(self, step: int, training: Training) -> float:
        """Return the cosine between 1 and the share that ``stop_lr`` has."""
        floor = stop_share(self.stop_lr, training)
        return floor + (1 - floor) * cosine(self.done(step, training))


class PolyLrUpdater(LrUpdater):
    """``(1 - done) ** power`` from the optimizer's learning rate down to ``stop_lr``, after warm-up."""

    def __init__(
        self,
        power: float = 1.0,
        warmup_len: float = 0,
        warmup_by: Unit = "epoch",
        step_log_interval: int | None = None,
        stop_lr: float = 0.0,
    ) -> None:
        super().__init__(warmup_len, warmup_by, step_log_interval)
        self.power = power
        self.stop_lr = stop_lr

    def factor(self, step: int, training: Training) -> float:
        """Return the polynomial between 1 and the share that ``stop_lr`` has."""
        floor = stop_share(self.stop_lr, training)
        return floor + (1 - floor) * polynomial(self.done(step, training), self.power)


class StepDecayLrUpdater(LrUpdater):
    """Multiply the learning rate by ``lr_decay_factor`` at each of the epochs (or steps) ``lr_decay_id``."""

    def __init__(
        self,
        lr_decay_id: Sequence[int],
        lr_decay_factor: float = 0.1,
        warmup_len: float = 0,
        warmup_by: Unit = "epoch",
        step_log_interval: int | None = None,
        decay_by: Unit = "epoch",
    ) -> None:
        super().__init__(warmup_len, warmup_by, step_log_interval)
        if decay_by not in ("epoch", "step"):
            raise ConfigError("decay_by is not known", seen=repr(decay_by), allowed="epoch or step")
        self.lr_decay_id = sorted(lr_decay_id)
        self.lr_decay_factor = lr_decay_factor
        self.decay_by = decay_by

    def factor(self, step: int, training: Training) -> float:
        """Return the factor to the number of decays so far."""
        place = step if self.decay_by == "step" else step // max(training.plan.steps_per_epoch, 1)
        return float(self.lr_decay_factor ** bisect.bisect_right(self.lr_decay_id, place))


def stop_share(stop_lr: float, training: Training) -> float:
    """Return ``stop_lr`` as a share of the optimizer's own learning rate."""
    assert training.optimizer is not None
    group = training.optimizer.param_groups[0]
    initial = float(group.get("initial_lr", group["lr"]))
    return stop_lr / initial if initial else 0.0
