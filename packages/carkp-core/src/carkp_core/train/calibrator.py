"""The calibration stage: batches flow through an observed network, then its scales are fixed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from carkp_core.config.recipe import deferred
from carkp_core.context import Context
from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.progress import progress
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.repair import InputBatch, Repair
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.checkpoint import Checkpoint
from carkp_core.train.environment import Environment
from carkp_core.train.evaluation import evaluating
from carkp_core.train.held_back import split
from carkp_core.train.loaders import EpochLoader, LoaderPlan, open_loader
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.state import Training
from carkp_core.train.trainer import Convert, Trainer, run_untrained


@deferred(data_loader=())
class Calibrator:
    """Calibrate a quantized model: its ``network`` must have become a ``QuantizedNetwork``.

    Parameters
    ----------
    model, model_convert_pipeline, device, callbacks, val_metrics:
        As of a ``Trainer``.
    data_loader, batch_processor:
        The calibration data; it is gone through again if there are fewer than ``num_steps`` batches.
    num_steps:
        Batches to observe.
    held_back:
        Batches of the data that are never observed, but at most a quarter of the samples. Repairs measure on them.
    repairs:
        Passes that make quantization cost less, run in this order before and after the observers.
    log_interval:
        Accepted for the tutorial's sake: progress is shown by time.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        batch_processor: Any = None,
        num_steps: int = 100,
        held_back: int = 4,
        repairs: Sequence[Repair] = (),
        device: Any = None,
        callbacks: Sequence[Callback] | None = None,
        val_metrics: Sequence[Any] | None = None,
        model_convert_pipeline: Convert | None = None,
        log_interval: float | None = None,
        *,
        context: Context,
    ) -> None:
        if not isinstance(num_steps, int) or num_steps < 1:
            raise ConfigError("Calibrator: num_steps is not a whole number of 1 or more", seen=repr(num_steps))
        if not isinstance(held_back, int) or held_back < 0:
            raise ConfigError("Calibrator: held_back is not a whole number of 0 or more", seen=repr(held_back))
        self.data_loader = data_loader
        self.batch_processor = batch_processor or MultiBatchProcessor(need_grad_update=False)
        self.num_steps = num_steps
        self.held_back = held_back
        self.repairs = tuple(repairs)
        self.context = context
        self._trainer = Trainer(
            model,
            batch_processor=self.batch_processor,
            device=device,
            callbacks=with_checkpoint(callbacks, context),
            val_metrics=val_metrics,
            model_convert_pipeline=model_convert_pipeline,
            context=context,
        )

    def fit(self) -> dict[str, float]:
        """Calibrate, validate, save ``best`` and ``last``; return the validation metrics.

        Raises
        ------
        QuantizationError
            A layer saw no data, or values that are not finite; or no converter makes the model a quantized one.
        """
        return run_untrained(self.context, self._trainer.device, self._trainer.prepare, self._calibrate)

    def _calibrate(self, training: Training) -> None:
        environment = training.environment
        _require_one_process(environment)
        network = _quantized(training.network)
        plan = LoaderPlan.of(self.data_loader, environment.context)
        kept, held = split(plan, self.held_back, environment.context.seed)
        loader = open_loader(kept, environment, training=True)
        # Read as training data: a loader for evaluation has no order of its own.
        apart = loader if held is None else open_loader(held, environment, training=True)
        with evaluating(training.model):
            batches = self._inputs(training, network, apart) if self.repairs else []
            for repair in self.repairs:
                repair.before_calibration(network, batches)
            network.start_observing()
            with progress("calibration", self.num_steps, environment.console) as advance:
                for batch in _cycled(loader, self.num_steps):
                    self.batch_processor.evaluate(training.model, batch)
                    advance()
                    environment.stop_if_asked()
            network.finish_observing()
            for repair in self.repairs:
                repair.after_calibration(network, batches)

    def _inputs(self, training: Training, network: QuantizedNetwork, loader: EpochLoader) -> list[InputBatch]:
        """What the network is called with when the model evaluates the batches of a loader, ``held_back`` at most."""
        seen: list[InputBatch] = []

        def look(_module: nn.Module, images: tuple[Tensor, ...]) -> None:
            seen.append(tuple(image.detach() for image in images))

        handle = network.register_forward_pre_hook(look)
        try:
            with network.in_float():
                for batch in itertools.islice(loader.epoch(0), max(self.held_back, 1)):
                    self.batch_processor.evaluate(training.model, batch)
                    training.environment.stop_if_asked()
        finally:
            handle.remove()
        return seen


def _quantized(network: nn.Module) -> QuantizedNetwork:
    if isinstance(network, QuantizedNetwork):
        return network
    raise QuantizationError(
        "the model to calibrate has no observers",
        where="calibration_trainer.model_convert_pipeline",
        seen=type(network).__name__,
        remedy="add dict(type='Float2Calibration') to the converters",
    )


def with_checkpoint(callbacks: Sequence[Callback] | None, context: Context) -> list[Callback]:
    """Return the callbacks with a ``Checkpoint`` among them: a stage without epochs has no other result."""
    found = list(callbacks or ())
    return found if any(isinstance(c, Checkpoint) for c in found) else [*found, Checkpoint(context=context)]


def _cycled(loader: EpochLoader, count: int) -> Iterator[Any]:
    """Yield ``count`` batches, epoch after epoch."""
    epoch = 0
    while count > 0:
        for batch in loader.epoch(epoch):
            yield batch
            count -= 1
            if count == 0:
                return
        epoch += 1


def _require_one_process(environment: Environment) -> None:
    if environment.world.size > 1:
        raise ConfigError(
            "calibration runs in one process",
            seen=f"{environment.world.size} processes",
            remedy="run `carkp train --stage calibration` without torchrun",
        )
