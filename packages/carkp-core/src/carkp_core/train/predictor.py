"""Prediction: a stage's model over a data set, with everything that ``carkp predict`` reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_core.config.recipe import deferred
from carkp_core.context import Context
from carkp_core.errors import ConfigError
from carkp_core.train.answers import writing_answers
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.environment import Environment, plain_environment
from carkp_core.train.evaluation import evaluate, may_overlap
from carkp_core.train.loaders import EpochLoader, open_loader
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.trainer import Convert, as_list


@frozen(eq=False)
class Prediction:
    """What a prediction found: metrics over ``samples`` samples, and a row per keypoint."""

    stage: str
    metrics: dict[str, float]
    samples: int
    table: Sequence[Mapping[str, Any]] = ()
    #: The picture of the worst samples, if one was drawn.
    worst: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """The fixed machine-readable form."""
        return {"stage": self.stage, "metrics": dict(self.metrics), "samples": self.samples}


@deferred(data_loader=())
class Predictor:
    """Evaluate a model.

    Parameters
    ----------
    model, model_convert_pipeline, device:
        As of a ``Trainer``; the pipeline ends with the loading of the stage's checkpoint.
    data_loader, batch_processor:
        The data, one loader or several that are gone through in turn.
    metrics:
        What to count. A metric may bring ``companions()``, which are counted and reported with it.
    callbacks:
        Told of each batch (``on_evaluated``).
    log_interval:
        Accepted for the tutorial's sake: progress is shown by time.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        batch_processor: Any = None,
        metrics: Sequence[Any] | None = None,
        device: Any = None,
        callbacks: Sequence[Callback] | None = None,
        model_convert_pipeline: Convert | None = None,
        log_interval: float | None = None,
        *,
        context: Context,
    ) -> None:
        self.model = model
        self.loaders = list(data_loader) if isinstance(data_loader, (list, tuple)) else [data_loader]
        self.batch_processor = batch_processor or MultiBatchProcessor(need_grad_update=False)
        #: As the config names them; ``metrics`` are led by their companions.
        self.own_metrics = as_list(metrics)
        self.metrics = with_companions(self.own_metrics)
        self.device = device
        self.callbacks = tuple(callbacks or ())
        self.model_convert_pipeline = model_convert_pipeline
        self.context = context

    def predict(self, answers: Path | None = None, worst: Path | None = None) -> Prediction:
        """Run the model over the data: loading goes on while the model runs, and memory does not grow with the data.

        Parameters
        ----------
        answers:
            Write every sample's answer to this file, one JSON object a line (``train.answers``).
        worst:
            Draw the samples with the largest errors to this picture.

        Raises
        ------
        ConfigError
            When the answers or the picture are asked for and the model or the metrics have none.
        """
        with torch_threads(self.context.threads), plain_environment(self.context, self.device) as environment:
            model = self._prepared(environment)
            threads = may_overlap(model, self.batch_processor)
            loaders = [open_loader(source, environment, False, threads) for source in self.loaders]
            writing = writing_answers(answers, self.metrics, environment.world) if answers else nullcontext()
            with writing as writer:
                callbacks = [*self.callbacks, *([writer] if writer else [])]
                values, samples = _evaluate_all(
                    model, loaders, self.batch_processor, self.metrics, environment, callbacks
                )
            if worst is not None and environment.world.is_main:
                _report_metric(self.metrics, "draw_worst").draw_worst(loaders[0].dataset, worst)
            return Prediction(self.context.stage, values, samples, _table(self.metrics, loaders[0].dataset), worst)

    def _prepared(self, environment: Environment) -> nn.Module:
        pipeline = self.model_convert_pipeline
        model = (pipeline(self.model) if pipeline else self.model).to(environment.device)
        if getattr(self.batch_processor, "enable_channels_last", False):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use as many threads inside the block; None leaves their number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def with_companions(metrics: Sequence[Any]) -> list[Any]:
    """Return the metrics, led by those of their companions that the config does not name itself, each once."""
    given = {metric.name for metric in metrics}
    found: dict[str, Any] = {}
    for metric in metrics:
        for companion in getattr(metric, "companions", tuple)():
            if companion.name not in given:
                found.setdefault(companion.name, companion)
    return [*found.values(), *metrics]


def _evaluate_all(
    model: nn.Module,
    loaders: Sequence[EpochLoader],
    processor: Any,
    metrics: Sequence[Any],
    environment: Environment,
    callbacks: Sequence[Any],
) -> tuple[dict[str, float], int]:
    """Evaluate over several data sets as over one."""
    values: dict[str, float] = {}
    samples = 0
    kept: list[dict[str, Tensor]] = []
    for number, loader in enumerate(loaders):
        values, count = evaluate(model, loader, processor, metrics, environment, callbacks, "predict")
        samples += count
        if number:
            for metric, state in zip(metrics, kept, strict=True):
                metric.load_state({key: tensor + state[key] for key, tensor in metric.state().items()})
        kept = [metric.state() for metric in metrics]
    if len(loaders) > 1:
        values = {}
        for metric in metrics:
            values |= {key: value for key, value in metric.compute().items() if key not in values}
    return values, samples


def _table(metrics: Sequence[Any], dataset: Any) -> Sequence[Mapping[str, Any]]:
    """The rows of the first metric that has any, keypoints by name where the data set has a skeleton."""
    found = next((metric for metric in metrics if hasattr(metric, "table")), None)
    rows = list(found.table()) if found is not None else []
    names = getattr(getattr(dataset, "skeleton", None), "keypoints", ())
    return [row | {"keypoint": names[row["keypoint"]]} if _is_numbered(row, names) else row for row in rows]


def _is_numbered(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    return isinstance(row.get("keypoint"), int) and row["keypoint"] < len(names)


def _report_metric(metrics: Sequence[Any], method: str) -> Any:
    found = next((metric for metric in metrics if hasattr(metric, method)), None)
    if found is None:
        raise ConfigError(
            "no metric can draw the worst samples",
            seen=", ".join(metric.name for metric in metrics) or "no metrics",
            remedy="add PCKMetric to the metrics",
        )
    return found
