"""The callback that writes for TensorBoard, an optional dependency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.processors import StepResult
from carkp_core.train.state import Training


class TensorBoard(Callback):
    """Write loss, learning rate and every epoch's metrics as scalars.

    Parameters
    ----------
    save_dir:
        By default ``tensorboard`` in the run's folder.
    update_freq:
        Steps between two records of loss and learning rate.
    """

    def __init__(self, save_dir: str | Path | None = None, update_freq: int = 10) -> None:
        self.save_dir = save_dir
        self.update_freq = max(1, update_freq)
        self._writer: Any = None

    def on_train_begin(self, training: Training) -> None:
        """Open the writer.

        Raises
        ------
        ConfigError
            TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "the TensorBoard callback needs a package that is not installed",
                seen=str(error),
                remedy="pip install 'carkp-core[tensorboard]', or leave the callback out",
            ) from error
        if training.environment.world.is_main:
            self._writer = SummaryWriter(str(self.save_dir or training.dir / "tensorboard"))  # type: ignore[no-untyped-call]

    def on_step_end(self, training: Training, result: StepResult) -> None:
        """Write loss and learning rate."""
        if self._writer is not None and training.step % self.update_freq == 0:
            self._writer.add_scalar("loss", result.loss, training.step)
            self._writer.add_scalar("lr", training.learning_rate, training.step)

    def on_checkpoint(self, training: Training) -> None:
        """Write the finished epoch's metrics."""
        if self._writer is not None:
            for name, value in training.history[-1].items():
                if name not in ("epoch", "step", "lr"):
                    self._writer.add_scalar(f"epoch/{name}", value, training.step)
            self._writer.flush()

    def on_stop(self, training: Training) -> None:
        """Close the writer."""
        self.on_train_end(training)

    def on_train_end(self, training: Training) -> None:
        """Close the writer."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
