"""The training loop."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

from carkp_core.errors import CarkpError
from carkp_core.progress import progress
from carkp_core.train.loaders import EpochLoader
from carkp_core.train.metrics import reduced
from carkp_core.train.state import Training


def train(training: Training, loader: EpochLoader, processor: Any) -> None:
    """Train from where the run stands to the end of its plan.

    Raises
    ------
    StoppedError
        When the run was asked to stop. Its state is that after a whole step.
    CarkpError
        When the loss is not finite; the weights are those before that step.
    """
    training.notify("on_train_begin")
    while training.epoch < training.plan.epochs:
        started_s = time.monotonic()
        training.notify("on_epoch_begin")
        train_epoch(training, loader, processor)
        finish_epoch(training, started_s)
    training.notify("on_train_end")


def train_epoch(training: Training, loader: EpochLoader, processor: Any) -> None:
    """Take the steps that are left of the present epoch."""
    steps = training.plan.steps_in(training.epoch)
    left = steps - training.step_in_epoch
    groups = loader.groups(training.epoch, processor.grad_accumulation_step, skip=training.step_in_epoch)
    title = f"epoch {training.epoch + 1}/{training.plan.epochs}"
    model, optimizer = training.replica, training.optimizer
    assert model is not None
    assert optimizer is not None
    model.train()

    def before_update(loss: float) -> None:
        _require_finite(loss, training)
        training.notify("on_gradients")

    images, since_s = 0, time.monotonic()
    with progress(title, left, training.environment.console) as advance:
        for batches in itertools.islice(groups, left):
            training.notify("on_step_begin")
            result = processor.train_step(model, optimizer, batches, before_update)
            training.step += 1
            training.step_in_epoch += 1
            training.notify("on_step_end", result)
            images += result.samples * training.environment.world.size
            speed = images / (time.monotonic() - since_s)
            advance(1, f"loss {result.loss:.4g}  lr {training.learning_rate:.2e}  {speed:.0f} images/s")
            training.environment.stop_if_asked()


def finish_epoch(training: Training, started_s: float) -> None:
    """Validate, record, count the epoch and save. A stage without epochs ends with one call of this."""
    training.notify("on_epoch_end")
    epoch, environment = training.epoch, training.environment
    values = reduced(training.train_metrics, environment.world) if training.plan.steps else {}
    if training.validated_epoch == epoch:
        values |= training.metrics
    record = {"epoch": epoch, "step": training.step, "lr": training.learning_rate, **values}
    seconds = time.monotonic() - started_s
    training.history.append(record)
    training.log({"lr": training.learning_rate, **values, "seconds": round(seconds, 2)})
    environment.say(_epoch_line(training, values, seconds))
    training.epoch += 1
    training.step_in_epoch = 0
    for metric in training.train_metrics:
        metric.reset()
    training.notify("on_checkpoint")
    environment.context.hook.carkp_epoch_finished(run=environment.run, epoch=epoch, metrics=values)


def _epoch_line(training: Training, values: dict[str, float], seconds: float) -> str:
    trains = training.plan.steps > 0
    title = f"epoch {training.epoch + 1}/{training.plan.epochs}" if trains else training.environment.context.stage
    shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
    rate = f"  lr {training.learning_rate:.2e}" if trains else ""
    return f"{title}  {shown}{rate}  {seconds:.0f} s"


def _require_finite(loss: float, training: Training) -> None:
    if math.isfinite(loss):
        return
    step = f"step {training.step_in_epoch + 1} of the epoch ({training.step + 1} in all)"
    raise CarkpError(
        f"the loss is {loss}",
        where=f"epoch {training.epoch + 1}, {step}",
        seen=f"learning rate {training.learning_rate:.3g}",
        allowed="finite losses",
        remedy="lower the learning rate, warm up (CosLrUpdater.warmup_len), or clip gradients "
        "(GradScale.clip_grad_norm); at the first step, look for NaN in the data or in the loaded weights",
    )
