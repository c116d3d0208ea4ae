"""The int_infer stage: it converts and evaluates, and trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from carkp_core.context import Context
from carkp_core.train.calibrator import with_checkpoint
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.environment import Environment
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.state import Training
from carkp_core.train.trainer import Convert, Trainer, run_untrained


class IntegerTrainer:
    """Convert a model to integers, validate it, and save ``best`` and ``last`` with the integer graph beside them.

    Parameters are those of a ``Trainer`` that have a meaning here. A ``Checkpoint`` is added if there is none; it
    writes the graph of any model whose ``network`` has one.
    """

    def __init__(
        self,
        model: nn.Module,
        model_convert_pipeline: Convert | None = None,
        batch_processor: Any = None,
        device: Any = None,
        callbacks: Sequence[Callback] | None = None,
        val_metrics: Sequence[Any] | None = None,
        *,
        context: Context,
    ) -> None:
        self.context = context
        self._trainer = Trainer(
            model,
            batch_processor=batch_processor or MultiBatchProcessor(need_grad_update=False),
            device=device,
            callbacks=with_checkpoint(callbacks, context),
            val_metrics=val_metrics,
            model_convert_pipeline=model_convert_pipeline,
            context=context,
        )

    def fit(self) -> dict[str, float]:
        """Convert, validate and save; return the validation metrics."""
        return run_untrained(self.context, self._trainer.device, self._prepare)

    def _prepare(self, environment: Environment) -> Training:
        training = self._trainer.prepare(environment)
        for source in training.sources[-1:]:
            environment.say(f"int_infer: converted from {source['stage'] or 'a'} checkpoint {source['path']}")
        return training
