"""The callback that counts batches into metrics."""

from __future__ import annotations

from carkp_core.context import Context
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.evaluation import Evaluated
from carkp_core.train.metrics import UpdateFunction, update_metric
from carkp_core.train.processors import StepResult
from carkp_core.train.state import Training


class MetricUpdater(Callback):
    """Count training batches into ``train_metrics``, or evaluated ones into ``val_metrics``.

    A trainer and a ``Validation`` that name none count in the same way; this one can count in another, and log.

    Parameters
    ----------
    metric_update_func:
        ``update(metrics, batch, output)``, or a registered name; by default every metric's ``update(batch, output)``.
    step_log_freq:
        Steps between two records of the training metrics in ``metrics.jsonl``; None for none.
    epoch_log_freq:
        Accepted for the tutorial's sake: every epoch is recorded.
    log_prefix:
        Goes before the metrics' names in those records.
    """

    updates_metrics = True

    def __init__(
        self,
        metric_update_func: UpdateFunction | str | None = None,
        step_log_freq: int | None = None,
        epoch_log_freq: int = 1,
        log_prefix: str = "",
        *,
        context: Context | None = None,
    ) -> None:
        if isinstance(metric_update_func, str):
            assert context is not None
            metric_update_func = context.catalog.resolve(metric_update_func, "MetricUpdater.metric_update_func")
        self.metric_update_func: UpdateFunction = metric_update_func or update_metric
        self.step_log_freq = step_log_freq
        self.epoch_log_freq = epoch_log_freq
        self.log_prefix = log_prefix

    def on_step_end(self, training: Training, result: StepResult) -> None:
        """Count the step's batches."""
        for batch, output in zip(result.batches, result.outputs, strict=True):
            self.metric_update_func(training.train_metrics, batch, output)
        if self.step_log_freq and training.step % self.step_log_freq == 0:
            values = {name: value for metric in training.train_metrics for name, value in metric.compute().items()}
            named = {f"{self.log_prefix} {name}".strip(): value for name, value in values.items()}
            training.log(named)

    def on_evaluated(self, evaluated: Evaluated) -> None:
        """Count an evaluated batch."""
        self.metric_update_func(evaluated.metrics, evaluated.batch, evaluated.output)
