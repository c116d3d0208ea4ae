"""The callback that records loss, learning rate and speed."""

from __future__ import annotations

import time

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.processors import StepResult
from carkp_core.train.state import Training


class StatsMonitor(Callback):
    """Every ``log_freq`` steps, write loss, learning rate and images per second to ``metrics.jsonl``."""

    def __init__(self, log_freq: int = 100) -> None:
        if log_freq < 1:
            raise ConfigError("StatsMonitor: log_freq is below 1", seen=str(log_freq), allowed="1, 2, ...")
        self.log_freq = log_freq
        self._since_s = 0.0
        self._samples = 0

    def on_epoch_begin(self, training: Training) -> None:
        """Start the clock: validation does not count."""
        self._since_s, self._samples = time.monotonic(), 0

    def on_step_end(self, training: Training, result: StepResult) -> None:
        """Count, and record where it is time."""
        self._samples += result.samples * training.environment.world.size
        if training.step % self.log_freq:
            return
        now = time.monotonic()
        training.losses.append((training.step, result.loss, training.learning_rate))
        training.log(
            {
                "step_loss": result.loss,
                "lr": training.learning_rate,
                "images_per_s": round(self._samples / max(now - self._since_s, 1e-9), 2),
            }
        )
        self._since_s, self._samples = now, 0
