"""The samples of a report: some of a data set, evenly spread over it, or random inputs.

Legend: ``N`` images of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils.data import Dataset

from carkp_core.context import Context
from carkp_core.quant_report.source import Source
from carkp_core.train.environment import Environment
from carkp_core.train.loaders import LoaderPlan, open_loader

#: Samples of random inputs: enough to look at weights.
RANDOM_SAMPLES = 32
#: Samples of a batch at most: their tensors should stay near the cache, and a stop should lose little.
BATCH_SIZE = 16


class Feed:
    """The batches of a report: ``samples`` of a data set, evenly spread over it, or random inputs."""

    def __init__(self, source: Source, environment: Environment, samples: int, batch_size: int | None) -> None:
        context = environment.context
        if source.data is None:
            shapes = source.network.input_shapes.values()
            dataset: Any = RandomInputs([shape[1:] for shape in shapes], min(samples, RANDOM_SAMPLES), context.seed)
            plan = LoaderPlan(dataset, batch_size or BATCH_SIZE, collate_fn=stacked)
        else:
            plan = _spread(source.data, context, samples, batch_size)
        self.samples = len(plan.dataset)
        self._loader = open_loader(plan, environment, training=False)

    def __len__(self) -> int:
        return len(self._loader)

    def batches(self, skip: int = 0) -> Iterator[Any]:
        """The batches without the first ``skip``, which are not loaded."""
        return self._loader.epoch(0, skip)


class Spread(Dataset[Any]):
    """``count`` samples of a data set, evenly spread; else it is that data set."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset = dataset
        self.count = min(count, len(dataset))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self._place(index)]

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "count"):  # while it is being unpickled
            raise AttributeError(name)
        if name == "replay":
            replay = self.dataset.replay
            return lambda index, epoch: replay(self._place(index), epoch)
        return getattr(self.dataset, name)

    def _place(self, index: int) -> int:
        return index * len(self.dataset) // self.count


class RandomInputs(Dataset[Any]):
    """Inputs in [-1, 1], each sample the same for ever."""

    def __init__(self, shapes: Sequence[Sequence[int]], count: int, seed: int) -> None:
        self.shapes, self.count, self.seed = shapes, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return tuple(torch.rand(tuple(shape), generator=generator) * 2 - 1 for shape in self.shapes)


def stacked(samples: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Samples as one batch."""
    return tuple(torch.stack(column) for column in zip(*samples, strict=True))


def _spread(source: Any, context: Context, samples: int, batch_size: int | None) -> LoaderPlan:
    plan = LoaderPlan.of(source, context)
    dataset = Spread(plan.dataset, samples) if hasattr(plan.dataset, "__len__") else plan.dataset
    size = batch_size or min(plan.batch_size, BATCH_SIZE)
    return attrs.evolve(plan, dataset=dataset, batch_size=size, sampler=None, shuffle=False, drop_last=False)
