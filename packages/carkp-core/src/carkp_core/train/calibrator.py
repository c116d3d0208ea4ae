"""The calibration stage: batches flow through an observed network, then its scales are fixed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from carkp_core.config.recipe import deferred
from carkp_core.context import Context
from carkp_core.errors import CarkpError, ConfigError, QuantizationError
from carkp_core.progress import progress, track
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.observers import MinMax
from carkp_core.quant.output_error import sliced
from carkp_core.quant.repair.repair import InputBatch, Repair
from carkp_core.quant.scales import silent_tensors
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.callbacks.checkpoint import Checkpoint
from carkp_core.train.environment import Environment
from carkp_core.train.evaluation import evaluating
from carkp_core.train.held_back import LEAST_SAMPLES, split
from carkp_core.train.loaders import EpochLoader, LoaderPlan, open_loader
from carkp_core.train.processors import MultiBatchProcessor
from carkp_core.train.state import Training
from carkp_core.train.trainer import Convert, Trainer, run_untrained

#: Layers named in one message; the rest is counted.
_LISTED = 4
_NOT_HELD_BACK = (
    f"too little calibration data to hold any back (fewer than {LEAST_SAMPLES} samples, or no whole batch would stay):"
    " the observed batches also serve to choose and to measure by"
)


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
        Batches of the data that are never observed, but at most a quarter of the samples and none of fewer than 8. The
        observer ``mix`` chooses by them, and repairs measure on them.
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
        self.repairs = _repairs(repairs)
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
            A layer saw no data, or values that are not finite; the images have another size than the deployed
            network's input; or no converter makes the model a quantized one.
        """
        return run_untrained(self.context, self._trainer.device, self._trainer.prepare, self._calibrate)

    def _calibrate(self, training: Training) -> None:
        environment = training.environment
        _require_one_process(environment)
        network = _quantized(training.network)
        loader, apart = self._loaders(environment)
        with evaluating(training.model), _called_with(network, lambda images: _require_size(network, images)):
            batches = self._inputs(training, network, apart) if self.repairs else []
            for repair in self.repairs:
                repair.before_calibration(network, batches)
            _report_repairs(network, environment)
            network.start_observing()
            if apart is loader and self.held_back and (self.repairs or network.chooses):
                environment.say(_NOT_HELD_BACK)
            self._observe(training, network, loader)
            if network.chooses:
                batches = batches or self._inputs(training, network, apart)
                network.finish_observing(batches=_pieces(batches, environment))
            else:
                network.finish_observing()
            _report(network, environment)
            done = len(network.repairs)
            for repair in self.repairs:
                repair.after_calibration(network, batches)
            _report_repairs(network, environment, done)

    def _loaders(self, environment: Environment) -> tuple[EpochLoader, EpochLoader]:
        """The data to observe, and what is held back of it; the same where there is too little."""
        try:
            plan = LoaderPlan.of(self.data_loader, environment.context)
            kept, held = split(plan, self.held_back, environment.context.seed)
            loader = open_loader(kept, environment, training=True)
            # Read as training data: a loader for evaluation has no order of its own.
            return loader, loader if held is None else open_loader(held, environment, training=True)
        except CarkpError as error:
            error.where = error.where or "calibration_trainer.data_loader"
            raise

    def _observe(self, training: Training, network: QuantizedNetwork, loader: EpochLoader) -> None:
        environment = training.environment
        with progress("calibration", self.num_steps, environment.console) as advance:
            for number, batch in enumerate(_cycled(loader, self.num_steps), 1):
                self.batch_processor.evaluate(training.model, batch)
                network.require_finite(f"calibration batch {number}")
                advance()
                environment.stop_if_asked()

    def _inputs(self, training: Training, network: QuantizedNetwork, loader: EpochLoader) -> list[InputBatch]:
        """What the network is called with when the model evaluates the batches of a loader, ``held_back`` at most."""
        seen: list[InputBatch] = []
        with network.in_float(MinMax), _called_with(network, seen.append):
            for number, batch in enumerate(itertools.islice(loader.epoch(0), max(self.held_back, 1)), 1):
                self.batch_processor.evaluate(training.model, batch)
                network.require_finite(f"held-back batch {number}")
                training.environment.stop_if_asked()
        return seen


def _repairs(given: Any) -> tuple[Repair, ...]:
    given = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    for repair in given:
        if not all(callable(getattr(repair, method, None)) for method in ("before_calibration", "after_calibration")):
            raise ConfigError(
                f"Calibrator: {type(repair).__name__} is no repair",
                where="calibration_trainer.repairs",
                seen=repr(repair),
                allowed="objects with before_calibration(network, batches) and after_calibration(network, batches)",
            )
    return given


def _pieces(batches: Sequence[InputBatch], environment: Environment) -> Iterator[InputBatch]:
    """The batches in small pieces, with progress, until the run is asked to stop."""
    for piece in track(list(sliced(batches)), "comparing observers", console=environment.console):
        environment.stop_if_asked()
        yield piece


@contextmanager
def _called_with(network: QuantizedNetwork, look: Callable[[InputBatch], None]) -> Iterator[None]:
    """Inside the block ``look`` sees what the network is called with."""
    handle = network.register_forward_pre_hook(lambda _, images: look(images))
    try:
        yield
    finally:
        handle.remove()


def _require_size(network: QuantizedNetwork, images: InputBatch) -> None:
    """Ranges differ from size to size: calibrate at the one that is deployed."""
    for (name, shape), image in zip(network.input_shapes.items(), images, strict=False):
        if tuple(image.shape[1:]) != shape[1:]:
            raise QuantizationError(
                "the calibration images have another size than the deployed network's input",
                where=name,
                seen=" x ".join(map(str, image.shape[1:])),
                allowed=" x ".join(map(str, shape[1:])),
                remedy="set the size in the calibration data's transforms, or in deploy_inputs",
            )


def _report(network: QuantizedNetwork, environment: Environment) -> None:
    """Write every choice to the run's ``observers.json``, and say what a person should know of them."""
    records = network.observer_choices
    places = {name: str(network.layer(name).source) or name for name in records}
    if environment.run is not None:
        path = environment.run.dir / "observers.json"
        tensors = {name: {"where": places[name], **record} for name, record in records.items()}
        path.write_text(json.dumps(tensors, indent=2) + "\n", encoding="utf-8")
        chosen = Counter(record["choice"] for record in records.values() if record.get("errors"))
        if chosen:
            counts = ", ".join(f"{name} {count}" for name, count in chosen.most_common())
            environment.say(f"observers chosen by output error: {counts} (all candidates: {path})")
    silent = silent_tensors(records)
    if silent:
        shown = ", ".join(places[name] for name in silent[:_LISTED])
        rest = f" and {len(silent) - _LISTED} more" if len(silent) > _LISTED else ""
        environment.say(f"0 in every calibration batch, so any scale will do and they get 1 / qmax: {shown}{rest}")


def _report_repairs(network: QuantizedNetwork, environment: Environment, said: int = 0) -> None:
    """Write what repairs did to the run's ``repairs.json``, and say what was not said yet."""
    if network.repairs and environment.run is not None:
        path = environment.run.dir / "repairs.json"
        path.write_text(json.dumps(network.repairs, indent=2) + "\n", encoding="utf-8")
    for report in network.repairs[said:]:
        environment.say(f"{report['repair']}: {report['summary']}")


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
