"""A streaming histogram of |x|: every k-th element of each batch, in memory that does not grow.

It has 8192 bins from 0 to a limit. The limit is the first batch's greatest magnitude and doubles, merging bins in
pairs, when a greater one comes; so at least half of the bins are in use, whatever the batches' order.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carkp_core.quant.observers.observer import Observer

BINS = 8192
#: Elements of one batch that enter the histogram, at most.
SAMPLE = 1 << 16
#: Bins in float32, short of the last one's end by less than any bin's width.
_REACH = BINS * (1.0 - 2.0**-20)
#: A limit whose inverse is still a float32; scales end at 2**-60, so nothing below it matters.
_LEAST_LIMIT = 2.0**-100


class Histogram:
    """Counts of |x|."""

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)
        #: How many of bin 0 are exactly 0. Any scale represents these.
        self.zeros = 0
        #: Where the last bin ends; 0 while everything was 0.
        self.limit = 0.0

    @property
    def width(self) -> float:
        """A bin's width."""
        return self.limit / BINS

    @property
    def total(self) -> int:
        """Elements counted."""
        return int(self.counts.sum())

    @property
    def nonzero(self) -> npt.NDArray[np.int64]:
        """The counts without exact zeros, up to the last bin in use; [] when there are none."""
        counts = self.counts.copy()
        counts[0] -= self.zeros
        return counts[: int(np.flatnonzero(counts).max(initial=-1)) + 1]

    def add(self, magnitudes: Tensor, absmax: float) -> None:
        """Count magnitudes [count], float32; none exceeds ``absmax``."""
        zeros = len(magnitudes) - int(torch.count_nonzero(magnitudes))
        self.zeros += zeros
        if absmax == 0.0:
            self.counts[0] += zeros
            return
        self._reach(absmax)
        bins = (magnitudes * (_REACH / self.limit)).to(torch.int32).cpu().numpy()
        self.counts += np.bincount(bins, minlength=BINS)

    def _reach(self, absmax: float) -> None:
        if self.limit == 0.0:
            self.limit = max(absmax, _LEAST_LIMIT)
        while absmax > self.limit:
            self.limit *= 2.0
            self.counts[: BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[BINS // 2 :] = 0


class HistogramObserver(Observer):
    """Base of the observers that look at the distribution of |x|."""

    def __init__(self) -> None:
        super().__init__()
        self.histogram = Histogram()

    def collect(self, flat: Tensor, absmax: float) -> None:
        self.histogram.add(sampled(flat, self.batches).float().abs(), absmax)


def sampled(flat: Tensor, batch: int) -> Tensor:
    """Every k-th element of [count], ``SAMPLE`` at most; each batch starts at another place.

    k has no factor in common with the number of elements, hence none with any side of the tensor: all channels, rows
    and columns are met equally often.
    """
    count = flat.numel()
    stride = -(-count // SAMPLE)
    while math.gcd(stride, count) > 1:
        stride += 1
    return flat[batch % stride :: stride]
