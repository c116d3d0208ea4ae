"""Scales that follow the ranges of the activations while the weights train.

Every ``LOOK_STEPS`` steps the float network runs on a few samples and an observer looks at each tensor; its scale moves
a part of the way to what the observer says: ``s += averaging_constant (seen - s)``.

Processes that share a run look at the same samples, the first of their joint batch, and take the main process's word,
so their scales stay equal to the bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from attrs import frozen
from torch import Tensor

from carkp_core.errors import ConfigError
from carkp_core.quant.observers import Observer

#: How often, and at how many samples.
LOOK_STEPS, LOOK_SAMPLES = 16, 8


@frozen
class RangeFollower:
    """Makes the observer of one look, and says how far a scale follows it."""

    make: Callable[[], Observer]
    averaging_constant: float = 0.1

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.averaging_constant <= 1.0:
            raise ConfigError(
                "averaging_constant is a share",
                where="model_convert_pipeline.qconfig_params.activation_qat_qkwargs",
                seen=str(self.averaging_constant),
                allowed="(0, 1]",
            )

    def due(self, step: int) -> bool:
        """Whether to look at this step."""
        return step % LOOK_STEPS == 0


def joint_samples(images: Sequence[Tensor], most: int | None) -> list[Tensor]:
    """The first samples [N, ...] of the joint batch of all processes, dealt out in turn; all without ``most``."""
    if not _shared():
        return [image[:most] for image in images]
    size = dist.get_world_size()
    own = [image[: None if most is None else -(-most // size)].detach().cpu() for image in images]
    everyone: list[Any] = [None] * size
    dist.all_gather_object(everyone, own)
    return [_dealt([theirs[i] for theirs in everyone])[:most].to(image) for i, image in enumerate(images)]


def main_process_says(values: dict[str, float]) -> dict[str, float]:
    """The main process's values, in every process."""
    if not _shared():
        return values
    box = [values]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _shared() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _dealt(parts: Sequence[Tensor]) -> Tensor:
    """One sample of each in turn, as a ``DistributedSampler`` dealt them out."""
    rows = itertools.chain.from_iterable(itertools.zip_longest(*parts))
    return torch.stack([row for row in rows if row is not None])
