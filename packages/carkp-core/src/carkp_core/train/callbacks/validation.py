"""The callback that validates after epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from carkp_core.config.recipe import deferred
from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.checkpoint import load_state
from carkp_core.train.evaluation import evaluate
from carkp_core.train.loaders import EpochLoader, open_loader
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.state import Training


@deferred(data_loader=())
class Validation(Callback):
    """Evaluate the model over a data set into the trainer's ``val_metrics``.

    Parameters
    ----------
    data_loader, batch_processor:
        The validation data and what is done with a batch.
    callbacks:
        Told of each batch (``on_evaluated``). A ``MetricUpdater`` among them counts the metrics in its way.
    val_model:
        A model to evaluate in place of the one in training.
    init_with_train_model:
        Give ``val_model`` the trained weights before each validation; all names must agree.
    val_interval:
        Epochs between validations.
    val_on_train_end:
        Validate after the last epoch in any case.
    log_interval:
        Accepted for the tutorial's sake: progress is shown by time.
    """

    def __init__(
        self,
        data_loader: Any,
        batch_processor: Any = None,
        callbacks: Sequence[Callback] | None = None,
        val_model: nn.Module | None = None,
        init_with_train_model: bool = True,
        val_interval: int = 1,
        val_on_train_end: bool = True,
        log_interval: float | None = None,
    ) -> None:
        if val_interval < 1:
            raise ConfigError("Validation: val_interval is below 1", seen=str(val_interval), allowed="1, 2, ...")
        self.data_loader = data_loader
        self.batch_processor = batch_processor or MultiBatchProcessor(need_grad_update=False)
        self.callbacks = tuple(callbacks or ())
        self.val_model = val_model
        self.init_with_train_model = init_with_train_model
        self.val_interval = val_interval
        self.val_on_train_end = val_on_train_end
        self._loader: EpochLoader | None = None

    def on_train_begin(self, training: Training) -> None:
        """Open the data, so that a wrong path is known before the first epoch is paid for."""
        self._loader = open_loader(self.data_loader, training.environment, training=False)

    def on_epoch_end(self, training: Training) -> None:
        """Validate, if it is time."""
        is_last = training.epoch + 1 >= training.plan.epochs
        if (training.epoch + 1) % self.val_interval == 0 or (is_last and self.val_on_train_end):
            assert self._loader is not None
            training.metrics, _ = evaluate(
                self._model(training),
                self._loader,
                self.batch_processor,
                training.val_metrics,
                training.environment,
                self.callbacks,
            )
            training.validated_epoch = training.epoch

    def _model(self, training: Training) -> nn.Module:
        if self.val_model is None:
            return training.model
        if self.init_with_train_model:
            load_state(self.val_model, training.model.state_dict(), where="Validation.val_model")
        return self.val_model.to(training.environment.device)
