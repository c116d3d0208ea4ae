"""The callback that saves ``best`` and ``last``."""

from __future__ import annotations

import difflib
import math
import shutil
from pathlib import Path
from typing import Any, Literal

from carkp_core.context import Context
from carkp_core.errors import ConfigError
from carkp_core.ir import binary
from carkp_core.ir.graph import Graph
from carkp_core.stages import STAGES
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.checkpoint import save_checkpoint
from carkp_core.train.processors import StepResult
from carkp_core.train.resume import checkpoint_payload
from carkp_core.train.state import Training

SUFFIX = ".pth.tar"


class Checkpoint(Callback):
    """Save ``<save_dir>/<name_prefix>checkpoint-{best,last}.pth.tar``.

    ``last`` is where a resume starts, ``best`` what later stages and ``predict`` read. Without validation metrics, and
    in a stage that trains nothing, the two are equal. A model that holds an integer graph is written beside them, in
    the graph's binary form (``.ir``).

    Parameters
    ----------
    save_dir, name_prefix:
        By default the config's ``ckpt_dir`` and ``<stage>-``, where later stages look. A prefix that names a stage
        becomes the one being run, so that a callback shared by several trainers overwrites nobody's files.
    save_interval, interval_by:
        Epochs or steps between two saves of ``last``; it is also saved at the end and when the run is stopped.
    strict_match:
        Refuse to resume from a checkpoint whose names are not exactly the model's.
    mode, monitor_metric_key:
        What ``best`` means: the ``max`` or ``min`` of a validation metric, by default of the first.
    """

    def __init__(
        self,
        save_dir: str | Path | None = None,
        name_prefix: str | None = None,
        save_interval: int = 1,
        interval_by: Literal["epoch", "step"] = "epoch",
        strict_match: bool = True,
        mode: Literal["max", "min"] = "max",
        monitor_metric_key: str | None = None,
        *,
        context: Context,
    ) -> None:
        for name, value, allowed in (("mode", mode, ("max", "min")), ("interval_by", interval_by, ("epoch", "step"))):
            if value not in allowed:
                raise ConfigError(f"Checkpoint: {name} is not known", seen=repr(value), allowed=" or ".join(allowed))
        if save_interval < 1:
            raise ConfigError("Checkpoint: save_interval is below 1", seen=str(save_interval), allowed="1, 2, ...")
        self.save_dir = Path(save_dir) if save_dir is not None else context.ckpt_dir
        self.name_prefix = _prefix(name_prefix, context.stage)
        self.save_interval = save_interval
        self.interval_by = interval_by
        self.strict_match = strict_match
        self.mode = mode
        self.monitor_metric_key = monitor_metric_key
        self._best: float | None = None
        self._saved_step: tuple[int, int] | None = None

    def path(self, which: str) -> Path:
        """Where ``best`` or ``last`` stands."""
        return self.save_dir / f"{self.name_prefix}checkpoint-{which}{SUFFIX}"

    def on_train_begin(self, training: Training) -> None:
        """Check that what is monitored will be there."""
        key = self.monitor_metric_key
        names = [name for metric in training.val_metrics for name in metric.compute()]
        if key is not None and key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            raise ConfigError(
                f"Checkpoint: no validation metric is named {key!r}"
                + (f"; did you mean {close[0]!r}?" if close else ""),
                where="monitor_metric_key",
                allowed=", ".join(names) or "None, since there are no val_metrics",
            )

    def on_step_end(self, training: Training, result: StepResult) -> None:
        """Save ``last`` within an epoch, where steps are counted."""
        if self.interval_by == "step" and training.step % self.save_interval == 0:
            self._save_last(training)

    def on_checkpoint(self, training: Training) -> None:
        """Save ``best`` if the epoch is the best, and ``last``."""
        if training.plan.steps == 0:
            self._write(training, "last", resumable=False)
            self._copy_last_to_best(training)
            return
        if self._is_best(training):
            training.best_metrics = dict(training.metrics)
            self._write(training, "best", resumable=False)
        if self.interval_by == "epoch" and training.epoch % self.save_interval == 0:
            self._save_last(training)

    def on_stop(self, training: Training) -> None:
        """Save where the run stands."""
        if training.plan.steps:
            self._save_last(training)

    def on_train_end(self, training: Training) -> None:
        """Save ``last``, unless it is."""
        if training.plan.steps:
            self._save_last(training)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value."""
        return {"best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the best value."""
        self._best = state["best"]

    def _is_best(self, training: Training) -> bool:
        """Whether the epoch just finished is the best. Without any metric every epoch is."""
        if not training.val_metrics:
            return True
        if training.validated_epoch is None:
            return self._best is None
        if training.validated_epoch != training.epoch - 1 or not training.metrics:
            return False
        value = training.metrics[self.monitor_metric_key or next(iter(training.metrics))]
        if math.isnan(value):
            return self._best is None
        if self._best is None or (value > self._best if self.mode == "max" else value < self._best):
            self._best = value
            return True
        return False

    def _save_last(self, training: Training) -> None:
        place = (training.step, training.epoch)
        if place != self._saved_step:
            self._write(training, "last", resumable=True)
            self._saved_step = place

    def _write(self, training: Training, which: str, resumable: bool) -> None:
        payload = checkpoint_payload(training, resumable)  # exchanges between processes, so all make it
        if not training.environment.world.is_main:
            return
        save_checkpoint(self.path(which), payload)
        graph = getattr(training.network, "graph", None)
        if isinstance(graph, Graph):
            binary.write(graph, self._graph_path(which))

    def _copy_last_to_best(self, training: Training) -> None:
        if not training.environment.world.is_main:
            return
        for source, target in (
            (self.path("last"), self.path("best")),
            (self._graph_path("last"), self._graph_path("best")),
        ):
            if source.exists():
                temporary = target.with_name(f".{target.name}.tmp")
                shutil.copyfile(source, temporary)
                temporary.replace(target)

    def _graph_path(self, which: str) -> Path:
        path = self.path(which)
        return path.with_name(path.name.removesuffix(SUFFIX) + ".ir")


def _prefix(given: str | None, stage: str) -> str:
    """The prefix of the files. One callback often serves all stages, so another stage's name gives way to the run's."""
    if given is None or given.rstrip("-") in STAGES:
        return f"{stage}-"
    return given
