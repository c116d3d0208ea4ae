"""The batching of samples that configs get when they name no collate function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def default_collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack tensors, arrays and numbers of equal shape along a new first axis; everything else becomes a list."""
    return {key: _gathered([sample[key] for sample in samples]) for key in samples[0]}


def _gathered(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, (bool, int, float)):
        return torch.tensor(values)
    if isinstance(first, (np.ndarray, np.generic)):
        values = [torch.as_tensor(np.asarray(value)) for value in values]
        first = values[0]
    if isinstance(first, Tensor) and all(value.shape == first.shape for value in values):
        return torch.stack(values)
    return values


def batch_samples(batch: Any) -> int:
    """Return the number of samples in a batch: the length of its first tensor or list."""
    if isinstance(batch, Mapping):
        return next((len(v) for v in batch.values() if isinstance(v, (list, tuple)) or getattr(v, "ndim", 0) > 0), 1)
    return len(batch)
