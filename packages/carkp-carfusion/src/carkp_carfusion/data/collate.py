"""Batches from samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from carkp_core.errors import DataError


def collate_2d(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack the tensors and arrays of N samples along a new first axis; list everything else.

    Raises
    ------
    DataError
        If a tensor's shape differs between samples.
    """
    return {key: _collate(key, [sample[key] for sample in batch]) for key in batch[0]}


def _collate(key: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray):
        values = [torch.from_numpy(np.ascontiguousarray(value)) for value in values]
    elif not isinstance(first, torch.Tensor):
        return values
    shapes = {tuple(value.shape) for value in values}
    if len(shapes) > 1:
        raise DataError(
            f"the samples of a batch differ in the shape of {key!r}",
            seen=", ".join(map(str, sorted(shapes))),
            remedy="bring all images to one size: Resize, then RandomPadLdmkData with the network's input size",
        )
    return torch.stack(values)
