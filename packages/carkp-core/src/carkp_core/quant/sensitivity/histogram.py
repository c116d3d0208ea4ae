"""Histograms that add up exactly: of signed values, with bins whose width is a power of two.

The bins of a batch reach to the power of two that its greatest magnitude does not exceed. Two histograms are added by
merging the finer one's bins in pairs, so no order of batches changes a count. Exact zeros are counted apart: they round
to themselves whatever the scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

#: Bins on either side of zero.
HALF = 1024
#: Elements of one batch that enter the histogram, about.
SAMPLE = 1 << 16

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@frozen(eq=False)
class Histogram:
    """Counts of 2 x HALF bins over [-limit, limit], and of exact zeros, which are in no bin."""

    limit: float
    counts: Counts
    zeros: int

    @property
    def width(self) -> float:
        """Of a bin."""
        return self.limit / HALF

    @property
    def total(self) -> int:
        """Elements counted."""
        return int(self.counts.sum()) + self.zeros

    def centres(self) -> Floats:
        """Of the bins, [2 HALF]."""
        return (np.arange(2 * HALF, dtype=np.float64) - HALF + 0.5) * np.float64(self.width)

    def __add__(self, other: Histogram) -> Histogram:
        a, b = self, other
        if not a.counts.any() or not b.counts.any():
            wide = a if a.counts.any() else b
            return Histogram(wide.limit, wide.counts, a.zeros + b.zeros)
        limit = max(a.limit, b.limit)
        return Histogram(limit, _widened(a, limit) + _widened(b, limit), a.zeros + b.zeros)

    def sample(self, low: float, high: float) -> Tensor:
        """Elements that have this histogram, each at its bin's centre or at the nearest of the extremes."""
        values = np.clip(np.repeat(self.centres(), self.counts), low, high)
        return torch.from_numpy(np.concatenate([values, np.zeros(self.zeros), [low, high]])).float()

    def rounding_noise(self, scale: float, lo: int, hi: int) -> float:
        """Sum of squared errors when the elements are rounded to steps of ``scale`` and clamped to lo..hi.

        Inside a bin that is wider than a quarter of a step, elements are taken to lie anywhere between two steps:
        scale**2 / 12.
        """
        centres = self.centres()
        steps = np.rint(centres / scale)
        error = (centres - np.clip(steps, lo, hi) * scale) ** 2
        if self.width > scale / 4:
            inside = (steps >= lo) & (steps <= hi)
            error = np.where(inside, scale**2 / 12.0, error)
        return float((self.counts * error).sum())


def histogram_of(values: Tensor, absmax: float) -> Histogram:
    """Of about ``SAMPLE`` elements of a tensor, evenly spread. ``absmax`` is its greatest magnitude."""
    flat = values.detach().flatten()
    # An odd stride does not beat with powers of two in the shape.
    sample = flat[:: max(1, flat.numel() // SAMPLE) | 1].float()
    zeros = int((sample == 0.0).sum())
    if absmax == 0.0:
        return Histogram(1.0, np.zeros(2 * HALF, np.int64), zeros)
    limit = 2.0 ** math.ceil(math.log2(absmax))
    index = torch.floor(sample[sample != 0.0] * (HALF / limit)).clamp_(-HALF, HALF - 1).long() + HALF
    return Histogram(limit, torch.bincount(index, minlength=2 * HALF).cpu().numpy().astype(np.int64), zeros)


def joint(histograms: Iterable[Histogram]) -> Histogram:
    """The histogram of all elements."""
    first, *rest = histograms
    for histogram in rest:
        first = first + histogram
    return first


def _widened(histogram: Histogram, limit: float) -> Counts:
    """Counts over a range that is some power of two wider."""
    counts = histogram.counts
    for _ in range(round(math.log2(limit / histogram.limit))):
        merged = counts.reshape(-1, 2).sum(axis=1)
        edge = np.zeros(HALF // 2, np.int64)
        counts = np.concatenate([edge, merged, edge])
    return counts
