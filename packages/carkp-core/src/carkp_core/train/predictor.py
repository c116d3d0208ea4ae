"""Prediction: a stage's model over a data set, with everything that ``carkp predict`` reports.

Shapes: ``N`` batch, ``K`` keypoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn

from carkp_core.config.recipe import deferred
from carkp_core.context import Context
from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.environment import Environment, plain_environment
from carkp_core.train.evaluation import Evaluated, evaluate
from carkp_core.train.loaders import EpochLoader, open_loader
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.trainer import Convert, as_list


@frozen(eq=False)
class Prediction:
    """What a prediction found: metrics over ``samples`` samples, a row per keypoint, and each sample's answer."""

    stage: str
    metrics: dict[str, float]
    samples: int
    table: Sequence[Mapping[str, Any]] = ()
    answers: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
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

    def predict(self, collect: bool = False, worst: Path | None = None) -> Prediction:
        """Run the model over the data.

        Parameters
        ----------
        collect:
            Keep every sample's answer in ``answers``.
        worst:
            Draw the samples with the largest errors to this picture.

        Raises
        ------
        ConfigError
            When the answers or the picture are asked for and the model or the metrics have none.
        """
        with plain_environment(self.context, self.device) as environment:
            model = self._prepared(environment)
            loaders = [open_loader(source, environment, training=False) for source in self.loaders]
            collector = AnswerCollector(self.metrics) if collect else None
            callbacks = [*self.callbacks, *([collector] if collector else [])]
            values, samples = _evaluate_all(model, loaders, self.batch_processor, self.metrics, environment, callbacks)
            answers = _gathered(collector.answers, environment) if collector else ()
            if worst is not None and environment.world.is_main:
                _report_metric(self.metrics, "draw_worst").draw_worst(loaders[0].dataset, worst)
            return Prediction(
                self.context.stage, values, samples, _table(self.metrics, loaders[0].dataset), answers, worst
            )

    def _prepared(self, environment: Environment) -> nn.Module:
        pipeline = self.model_convert_pipeline
        model = (pipeline(self.model) if pipeline else self.model).to(environment.device)
        if getattr(self.batch_processor, "enable_channels_last", False):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model


class AnswerCollector(Callback):
    """Keeps each sample's keypoints, in pixels of the image as it was before the transforms."""

    def __init__(self, metrics: Sequence[Any]) -> None:
        self.answers: list[dict[str, Any]] = []
        self._decoder = next((metric for metric in metrics if hasattr(metric, "decode")), None)

    def on_evaluated(self, evaluated: Evaluated) -> None:
        """Take the answers of a batch."""
        output = evaluated.output
        points = self._decoder.decode(output) if self._decoder is not None else output
        if not isinstance(points, Tensor) or points.ndim != 3 or points.shape[-1] not in (2, 3):
            raise ConfigError(
                "the model's answers are no keypoints, so there are none to write",
                seen=f"{list(points.shape)}" if isinstance(points, Tensor) else type(points).__name__,
                allowed="[N, K, 3]: x, y and confidence",
                remedy="give the model a post_process",
            )
        points = points.detach().to("cpu", torch.float64)
        self.answers += list(_answers(evaluated.batch, points, len(self.answers)))


def _answers(batch: Mapping[str, Any], points: Tensor, first: int) -> Iterator[dict[str, Any]]:
    transforms = batch.get("transform_xy")
    names = batch.get("img_name")
    indices = batch.get("index")
    for n, answer in enumerate(points):
        xy = answer[:, :2]
        if transforms is not None:
            xy = mapped_back(xy, torch.as_tensor(transforms[n]).to("cpu", torch.float64))
        confidence = answer[:, 2:3] if answer.shape[-1] == 3 else torch.full((len(answer), 1), math.nan)
        rows = torch.cat([xy, confidence.to(xy.dtype)], dim=1).tolist()
        yield {
            "img_name": names[n] if names is not None else "",
            "index": int(indices[n]) if indices is not None else first + n,
            "keypoints": [[None if math.isnan(value) else round(value, 4) for value in row] for row in rows],
        }


def mapped_back(xy: Tensor, transform: Tensor) -> Tensor:
    """Undo an affine map.

    Parameters
    ----------
    xy:
        ``[K, 2]``, in pixels of the network's input.
    transform:
        ``[2, 3]``, from the image's pixels to those of the network's input.

    Returns
    -------
    ``[K, 2]``, in the image's pixels.
    """
    return torch.linalg.solve(transform[:, :2], (xy - transform[:, 2]).T).T


def with_companions(metrics: Sequence[Any]) -> list[Any]:
    """Return the metrics, led by those of their companions that the config does not name itself, each once."""
    given = {metric.name for metric in metrics}
    found: dict[str, Any] = {}
    for metric in metrics:
        for companion in getattr(metric, "companions", tuple)():
            if companion.name not in given:
                found.setdefault(companion.name, companion)
    return [*found.values(), *metrics]


def write_answers(path: Path, answers: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line: ``img_name``, ``index`` and ``keypoints`` (rows of x, y, confidence)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(answer) + "\n" for answer in answers), encoding="utf-8")
    temporary.replace(path)


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


def _gathered(answers: Sequence[Mapping[str, Any]], environment: Environment) -> list[Mapping[str, Any]]:
    """The answers of all processes, in the data set's order."""
    everyone = [answer for share in environment.world.gather(list(answers)) for answer in share]
    return sorted(everyone, key=lambda answer: answer["index"]) if environment.world.size > 1 else everyone


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
