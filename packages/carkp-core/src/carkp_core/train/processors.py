"""Batch processors: what is done with a batch, in training and in evaluation.

``MultiBatchProcessor.train_step`` is the training step. A third party's processor has the same three members.

Shapes: image tensors are ``[N, C, H, W]``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_core.context import Context
from carkp_core.errors import ConfigError
from carkp_core.train.collate import batch_samples

Batch = Any
LossCollector = Callable[[Any], Any]


@frozen(eq=False)
class StepResult:
    """What a step leaves behind. ``loss`` is the mean over its batches; ``outputs`` carry no graph."""

    loss: float
    batches: Sequence[Batch]
    outputs: Sequence[Any]

    @property
    def samples(self) -> int:
        """The number of samples that the step used, in this process."""
        return sum(batch_samples(batch) for batch in self.batches)


class BatchProcessor(Protocol):
    """What the loop needs of a batch processor."""

    #: Batches to one optimizer step.
    grad_accumulation_step: int

    def train_step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Sequence[Batch],
        before_update: Callable[[float], None],
    ) -> StepResult:
        """Take one optimizer step; ``before_update(loss)`` is called when all gradients are there."""

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Batch, Any]:
        """Return the batch as the model saw it and the model's answer. No gradients."""


class MultiBatchProcessor:
    """Runs batches through a model whose ``forward`` takes the whole batch.

    Parameters
    ----------
    need_grad_update:
        True for training; evaluation needs no gradients.
    batch_transforms:
        Functions applied to each batch on its device, batch in, batch out.
    loss_collector:
        Takes the losses from the model's answer: a callable, or a registered name. By default the losses are found
        at index 1 of a tuple.
    enable_amp, enable_amp_dtype:
        Compute in bfloat16 where torch's autocast finds it safe.
    enable_channels_last:
        Keep images channel-last in memory, which is faster on CPUs and on GPUs with tensor cores.
    grad_accumulation_step:
        Batches to one optimizer step. The gradient is that of the mean loss over all their samples.
    """

    def __init__(
        self,
        need_grad_update: bool = True,
        loss_collector: LossCollector | str | None = None,
        batch_transforms: Sequence[Callable[[Batch], Batch]] | None = None,
        enable_amp: bool = False,
        enable_amp_dtype: torch.dtype | str = "bfloat16",
        enable_channels_last: bool = True,
        grad_accumulation_step: int = 1,
        context: Context | None = None,
    ) -> None:
        if grad_accumulation_step < 1:
            raise ConfigError(
                "grad_accumulation_step is below 1", seen=str(grad_accumulation_step), allowed="1, 2, ..."
            )
        if str(enable_amp_dtype).removeprefix("torch.") != "bfloat16":
            raise ConfigError(
                "enable_amp_dtype is not supported",
                seen=str(enable_amp_dtype),
                allowed="bfloat16, which needs no scaling of the loss",
            )
        self.need_grad_update = need_grad_update
        self.loss_collector = _resolve_collector(loss_collector, context)
        self.batch_transforms = tuple(batch_transforms or ())
        self.enable_amp = enable_amp
        self.enable_channels_last = enable_channels_last
        self.grad_accumulation_step = grad_accumulation_step

    def train_step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Sequence[Batch],
        before_update: Callable[[float], None],
    ) -> StepResult:
        """Forward, backward and update for the batches of one optimizer step."""
        optimizer.zero_grad(set_to_none=True)
        sizes = [batch_samples(batch) for batch in batches]
        mean_loss, seen, outputs = 0.0, [], []
        for number, raw in enumerate(batches):
            batch = self.prepare(model, raw)
            share = sizes[number] / sum(sizes)
            # Replicated models exchange gradients once a step, with the last of its batches.
            with _without_exchange(model, number < len(batches) - 1):
                with self._autocast(model):
                    output = model(batch)
                    loss = total_loss(self.loss_collector(output))
                (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
            mean_loss += loss.item() * share
            seen.append(batch)
            outputs.append(detached(output))
        before_update(mean_loss)
        optimizer.step()
        return StepResult(mean_loss, seen, outputs)

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Batch, Any]:
        """Run a batch without gradients."""
        batch = self.prepare(model, batch)
        with torch.no_grad(), self._autocast(model):
            return batch, model(batch)

    def prepare(self, model: nn.Module, batch: Batch) -> Batch:
        """Move a batch to the model's device and memory format and apply the batch transforms."""
        device = _device_of(model)
        batch = _moved(batch, device, self.enable_channels_last)
        for transform in self.batch_transforms:
            batch = transform(batch)
        return batch

    def _autocast(self, model: nn.Module) -> AbstractContextManager[Any]:
        return torch.autocast(_device_of(model).type, torch.bfloat16) if self.enable_amp else nullcontext()


def collect_loss_by_index(indexes: int | Sequence[int] = 1) -> LossCollector:
    """Return a collector that takes the losses at one index, or at several, of the model's answer."""
    wanted = (indexes,) if isinstance(indexes, int) else tuple(indexes)

    def collect(output: Any) -> Any:
        if not isinstance(output, (tuple, list)) or len(output) <= max(wanted):
            raise ConfigError(
                "the model's answer holds no loss",
                seen=f"{type(output).__name__}" + (f" of {len(output)}" if isinstance(output, (tuple, list)) else ""),
                allowed=f"a tuple with a loss at index {', '.join(map(str, wanted))}",
                remedy="give the model a loss, or another loss_collector to the batch processor",
            )
        return [output[index] for index in wanted] if len(wanted) > 1 else output[wanted[0]]

    return collect


def collect_loss_by_regex(loss_name_reg: str = "loss") -> LossCollector:
    """Return a collector that takes the losses whose name in the model's answer, a dict, matches a pattern."""
    pattern = re.compile(loss_name_reg)

    def collect(output: Any) -> Any:
        found = {k: v for k, v in output.items() if pattern.search(k)} if isinstance(output, Mapping) else {}
        if not found:
            raise ConfigError(
                "the model's answer holds no loss",
                seen=", ".join(output) if isinstance(output, Mapping) else type(output).__name__,
                allowed=f"a dict with names that match {loss_name_reg!r}",
            )
        return found

    return collect


def total_loss(losses: Any) -> Tensor:
    """Return the sum of the losses in a nest of dicts and sequences; a tensor of several values counts as its mean."""
    if isinstance(losses, Tensor):
        return losses if losses.ndim == 0 else losses.mean()
    parts = list(losses.values()) if isinstance(losses, Mapping) else list(losses)
    return torch.stack([total_loss(part) for part in parts]).sum()


def detached(value: Any) -> Any:
    """Return a nest of tensors without its graph."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: detached(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(detached(item) for item in value))
    return type(value)(detached(item) for item in value) if isinstance(value, (list, tuple)) else value


def _resolve_collector(collector: LossCollector | str | None, context: Context | None) -> LossCollector:
    if collector is None:
        return collect_loss_by_index(1)
    if not isinstance(collector, str):
        return collector
    assert context is not None
    found = context.catalog.resolve(collector, "loss_collector")
    is_maker = collector in context.catalog and context.catalog[collector].kind == "loss_collector"
    return found() if is_maker else found  # type: ignore[no-any-return]


def _without_exchange(model: nn.Module, apart: bool) -> AbstractContextManager[Any]:
    return model.no_sync() if apart and hasattr(model, "no_sync") else nullcontext()  # type: ignore[operator]


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _moved(value: Any, device: torch.device, channels_last: bool) -> Any:
    if isinstance(value, Tensor):
        value = value.to(device, non_blocking=True)
        as_image = channels_last and value.ndim == 4 and value.is_floating_point()
        return value.contiguous(memory_format=torch.channels_last) if as_image else value
    if isinstance(value, Mapping):
        return {key: _moved(item, device, channels_last) for key, item in value.items()}
    return (
        type(value)(_moved(item, device, channels_last) for item in value)
        if isinstance(value, (list, tuple))
        else value
    )
