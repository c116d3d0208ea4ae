"""The trainers that configs name: a model, its conversions, data and plan, run through the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from carkp_core.config.recipe import Recipe, deferred
from carkp_core.context import Context
from carkp_core.errors import ConfigError
from carkp_core.quant.learned_scale import ScaleGuard, learned_scales, parameter_groups
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.checkpoint import Checkpoint
from carkp_core.train.callbacks.metric_updater import MetricUpdater
from carkp_core.train.curves import draw_curves
from carkp_core.train.distributed import replicate
from carkp_core.train.environment import Environment, stage_environment
from carkp_core.train.interrupts import StoppedError
from carkp_core.train.loaders import EpochLoader, open_loader
from carkp_core.train.loop import finish_epoch, train
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.resume import resume
from carkp_core.train.state import Plan, Training
from carkp_core.train.sync_bn import convert_sync_bn

Convert = Callable[[nn.Module], nn.Module]


@deferred(data_loader=(), optimizer=("params",))
class Trainer:
    """Train a model.

    Under ``torchrun`` the processes share each epoch and average their gradients; alone it is an ordinary trainer.

    Parameters
    ----------
    model:
        Takes a batch. In training it answers with what the batch processor's loss collector understands.
    data_loader, batch_processor:
        The training data and what is done with a batch.
    optimizer:
        A recipe, or a callable, that takes ``params``.
    num_epochs, num_steps:
        How long: one of the two. 0 epochs convert, validate and save without training.
    device:
        None is the GPU of this process if there is one, else the CPU.
    callbacks:
        Called in this order at the places that ``callbacks.base`` names.
    train_metrics, val_metrics:
        The first value of ``val_metrics`` chooses ``best``.
    model_convert_pipeline:
        What the model goes through first, such as loading weights.
    sync_bn:
        Batch norm over the joint batch of all processes.
    find_unused_parameters:
        Bear with parameters that take no part in a step, when processes share the run; it costs a little.
    log_interval:
        Accepted for the tutorial's sake: progress is shown by time.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any = None,
        optimizer: Any = None,
        batch_processor: Any = None,
        num_epochs: int | None = None,
        num_steps: int | None = None,
        device: Any = None,
        callbacks: Sequence[Callback] | None = None,
        train_metrics: Sequence[Any] | None = None,
        val_metrics: Sequence[Any] | None = None,
        model_convert_pipeline: Convert | None = None,
        sync_bn: bool = False,
        find_unused_parameters: bool = False,
        log_interval: float | None = None,
        *,
        context: Context,
    ) -> None:
        _check_length(num_epochs, num_steps)
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.batch_processor = batch_processor or MultiBatchProcessor()
        self.num_epochs = num_epochs
        self.num_steps = num_steps
        self.device = device
        self.callbacks = list(callbacks or ())
        self.train_metrics = as_list(train_metrics)
        self.val_metrics = as_list(val_metrics)
        self.model_convert_pipeline = model_convert_pipeline
        self.sync_bn = sync_bn
        self.find_unused_parameters = find_unused_parameters
        self.context = context

    def fit(self) -> dict[str, float]:
        """Run the stage and return the best validation metrics.

        Raises
        ------
        StoppedError
            After Ctrl-C or SIGTERM, when ``last`` is saved.
        CarkpError
            For anything wrong in the config, data or checkpoints, and for a loss that is not finite.
        """
        if not (self.num_epochs or self.num_steps):
            return run_untrained(self.context, self.device, self.prepare)
        with stage_environment(self.context, self.device) as environment:
            loader = self._loader(environment)  # first: missing data is known before weights are loaded
            training = self.prepare(environment)
            per_epoch = -(-len(loader) // self.batch_processor.grad_accumulation_step)
            training.plan = Plan.of(self.num_epochs, self.num_steps, per_epoch)
            self._make_trainable(training)
            if self.context.resume:
                _resume(training)
            try:
                train(training, loader, self.batch_processor)
            except StoppedError as stop:
                raise _stop(training, stop) from None
            if environment.world.is_main:
                draw_curves(training.history, training.losses, training.dir / "curves.png")
            return training.best_metrics or training.metrics

    def prepare(self, environment: Environment) -> Training:
        """Convert the model and bring it to its device."""
        callbacks = list(self.callbacks)
        if self.train_metrics and not any(isinstance(c, MetricUpdater) for c in callbacks):
            callbacks.insert(0, MetricUpdater())
        if not any(isinstance(c, Checkpoint) for c in callbacks):
            environment.say("no Checkpoint among the callbacks: nothing will be saved")
        pipeline = self.model_convert_pipeline
        model = (pipeline(self.model) if pipeline else self.model).to(environment.device)
        if getattr(self.batch_processor, "enable_channels_last", False):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Training(
            environment,
            model,
            plan=Plan(1, 0, 0),
            callbacks=tuple(callbacks),
            train_metrics=self.train_metrics,
            val_metrics=self.val_metrics,
            sources=list(getattr(pipeline, "sources", ())),
        )

    def _loader(self, environment: Environment) -> EpochLoader:
        if self.data_loader is None:
            raise ConfigError("a trainer needs data_loader", where=f"{self.context.stage}_trainer")
        return open_loader(self.data_loader, environment, training=True)

    def _make_trainable(self, training: Training) -> None:
        """Add the optimizer and, where processes share the run, joint batch norm and the averaging of gradients."""
        environment = training.environment
        if self.sync_bn and environment.world.size > 1:
            training.model = convert_sync_bn(training.model, environment.device)
        if not getattr(self.batch_processor, "need_grad_update", True):
            raise ConfigError(
                "a trainer's batch_processor has need_grad_update=False",
                where=f"{self.context.stage}_trainer.batch_processor",
                allowed="need_grad_update=True; False is for validation",
            )
        parameters = [p for p in training.model.parameters() if p.requires_grad]
        if self.optimizer is None or not parameters:
            raise ConfigError(
                "a trainer needs an optimizer and a model with parameters",
                where=f"{self.context.stage}_trainer",
                seen=f"optimizer {'missing' if self.optimizer is None else 'given'}, {len(parameters)} parameters",
            )
        make = self.optimizer.build if isinstance(self.optimizer, Recipe) else self.optimizer
        training.optimizer = make(params=parameter_groups(training.model))
        ScaleGuard(learned_scales(training.model)).attach(training.optimizer)
        training.replica = replicate(training.model, environment.device, environment.world, self.find_unused_parameters)


#: The tutorial's name for the same thing: processes started by ``torchrun`` share the run.
distributed_data_parallel_trainer = Trainer


def run_untrained(
    context: Context,
    device: Any,
    prepare: Callable[[Environment], Training],
    work: Callable[[Training], None] | None = None,
) -> dict[str, float]:
    """Run a stage without epochs: prepare (and ``work``), validate, save ``best`` and ``last``; return the metrics."""
    with stage_environment(context, device) as environment:
        started_s = time.monotonic()
        try:
            training = prepare(environment)
            training.notify("on_train_begin")
            if work is not None:
                work(training)
            finish_epoch(training, started_s)
            training.notify("on_train_end")
        except StoppedError as stop:
            raise StoppedError(stop.signum, f"{context.stage}: stopped, nothing was saved; run it again") from None
        return training.metrics


def as_list(metrics: Any) -> list[Any]:
    """Return metrics as a list, where a config gives one, several or none."""
    if metrics is None:
        return []
    return list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]


def checkpoint_callback(training: Training) -> Checkpoint | None:
    """Return the run's ``Checkpoint`` callback."""
    return next((c for c in training.callbacks if isinstance(c, Checkpoint)), None)


def _check_length(num_epochs: int | None, num_steps: int | None) -> None:
    if num_epochs is not None and num_steps is not None:
        raise ConfigError(
            "a trainer has num_epochs and num_steps", seen=f"{num_epochs}, {num_steps}", allowed="one of them"
        )
    for name, value in (("num_epochs", num_epochs), ("num_steps", num_steps)):
        if value is not None and (not isinstance(value, int) or value < 0):
            raise ConfigError(f"{name} is not a whole number of 0 or more", seen=repr(value))


def _resume(training: Training) -> None:
    callback, context = checkpoint_callback(training), training.environment.context
    path: Path = callback.path("last") if callback else context.checkpoint(context.stage, "last")
    if not path.exists():
        training.environment.say(f"nothing to resume at {path}: starting from the beginning")
        return
    resume(training, path, strict=callback.strict_match if callback else True)
    training.environment.say(f"resumed from {path}: {training.place}")


def _stop(training: Training, stop: StoppedError) -> StoppedError:
    """Save where the run stands and say how to go on."""
    training.notify("on_stop")
    callback = checkpoint_callback(training)
    saved = f"saved {callback.path('last')}; go on with --resume" if callback else "nothing was saved"
    return StoppedError(stop.signum, f"stopped at {training.place}; {saved}")
