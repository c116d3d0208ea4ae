"""Evaluation: a model over a data set, into metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import frozen
from torch import nn

from carkp_core.progress import progress
from carkp_core.train.collate import batch_samples
from carkp_core.train.environment import Environment
from carkp_core.train.loaders import EpochLoader
from carkp_core.train.metrics import reduced, update_metric


@frozen(eq=False)
class Evaluated:
    """A batch that was evaluated: what callbacks of an evaluation see."""

    batch: Any
    output: Any
    metrics: Sequence[Any]
    #: The batch's number in this process.
    number: int


def evaluate(
    model: nn.Module,
    loader: EpochLoader,
    processor: Any,
    metrics: Sequence[Any],
    environment: Environment,
    callbacks: Sequence[Any] = (),
    description: str = "validation",
) -> tuple[dict[str, float], int]:
    """Run a model in evaluation mode over a whole data set.

    Every process takes its share; none is duplicated, and the result is that of one process.

    Returns
    -------
    The metrics over all samples, and the number of samples.
    """
    counts = not any(getattr(callback, "updates_metrics", False) for callback in callbacks)
    for metric in metrics:
        metric.reset()
    samples = 0
    with evaluating(model), progress(description, len(loader), environment.console) as advance:
        for number, raw in enumerate(loader.epoch(0)):
            batch, output = processor.evaluate(model, raw)
            samples += batch_samples(batch)
            if counts:
                update_metric(metrics, batch, output)
            for callback in callbacks:
                callback.on_evaluated(Evaluated(batch, output, metrics, number))
            advance()
            # Processes have different numbers of batches, so only a lone one may stop here.
            if environment.world.size == 1:
                environment.stop_if_asked()
    total = sum(environment.world.gather(samples))
    return reduced(metrics, environment.world), total


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
