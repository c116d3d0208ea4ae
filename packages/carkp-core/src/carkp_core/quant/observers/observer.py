"""The base of observers: exact extremes of everything seen, and what was wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor


class Observer:
    """Base of observers. A subclass has ``threshold``, and ``collect`` if it looks at more than the extremes."""

    #: It offers several thresholds, from which held-back batches choose.
    chooses: ClassVar[bool] = False
    #: As a config names it.
    name: ClassVar[str] = ""

    def __init__(self) -> None:
        self.batches = 0
        self.low, self.high = math.inf, -math.inf
        #: "NaN" or "an infinite value", once one was seen.
        self.defect = ""

    def update(self, values: Tensor) -> None:
        """Take in one batch."""
        flat = flattened(values.detach())
        if flat.numel() == 0:
            return
        low, high = (float(v) for v in torch.aminmax(flat))
        if math.isnan(low) or math.isnan(high):
            self.defect = "NaN"
        elif math.isinf(low) or math.isinf(high):
            self.defect = self.defect or "an infinite value"
        else:
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.collect(flat, max(abs(low), abs(high)))
        self.batches += 1

    def collect(self, flat: Tensor, absmax: float) -> None:
        """What else the observer keeps of a batch: ``flat`` [count] in the order of its memory, all finite."""

    @property
    def absmax(self) -> float:
        """The greatest magnitude of all finite batches; 0 before the first."""
        return max(abs(self.low), abs(self.high)) if self.high >= self.low else 0.0

    def threshold(self, levels: int) -> float:
        """The magnitude for ``levels`` positive steps (127 or 32767)."""
        raise NotImplementedError(type(self).__name__)

    def candidates(self, levels: int) -> Mapping[str, float]:
        """The thresholds on offer, by name; one, unless the observer ``chooses``."""
        return {self.name or type(self).__name__: self.threshold(levels)}


def flattened(values: Tensor) -> Tensor:
    """The elements [count] in the order of their memory, without a copy where they are dense."""
    if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last):
        return values.permute(0, 2, 3, 1).reshape(-1)
    return values.reshape(-1)
