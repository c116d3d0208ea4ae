"""Evaluation: a model over a data set, into metrics."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from attrs import frozen
from torch import nn

from carkp_core.progress import progress
from carkp_core.train.ahead import overlapping
from carkp_core.train.collate import batch_samples
from carkp_core.train.environment import Environment
from carkp_core.train.loaders import EpochLoader
from carkp_core.train.metrics import reduced, update_metric
from carkp_core.train.processors import MultiBatchProcessor

#: Batches in a model at a time whose evaluations may overlap.
_OVERLAP = 2


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
    with (
        evaluating(model),
        progress(description, len(loader), environment.console) as advance,
        closing(loader.epoch(0)) as batches,
        closing(_answers(model, batches, processor)) as answers,
    ):
        for number, (batch, output) in enumerate(answers):
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


def _answers(model: nn.Module, batches: Iterable[Any], processor: Any) -> Generator[tuple[Any, Any]]:
    """Each batch as the model saw it, and the model's answer."""
    if may_overlap(model, processor):
        return overlapping(lambda raw: processor.evaluate(model, raw), batches, _OVERLAP)
    return (processor.evaluate(model, raw) for raw in batches)


def may_overlap(model: nn.Module, processor: Any) -> bool:
    """Whether several batches may be in a model at a time, and gain by it.

    They gain where a part has threads of its own (``own_threads``, an integer model), which would wait while one
    thread prepares and decodes a batch; and they may where the model says that its evaluation changes nothing in it
    (``reentrant``) and the processor is core's own without further transforms.
    """
    plain = type(processor) is MultiBatchProcessor and not processor.batch_transforms
    gains = any(getattr(part, "own_threads", False) for part in model.modules())
    return plain and gains and bool(getattr(model, "reentrant", False))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
