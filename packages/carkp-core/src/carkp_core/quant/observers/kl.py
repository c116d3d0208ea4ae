"""The observer of the least Kullback-Leibler divergence, after TensorRT's published method.

P is the histogram up to a threshold, with everything beyond added to its last bin. Q is the same histogram at as many
levels as the integer type has, each level's count spread evenly over those of its bins that are in use. The threshold
with the least ``sum(P log(P / Q))`` is chosen. Exact zeros take no part: any scale represents them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from carkp_core.errors import ConfigError
from carkp_core.quant.observers.histogram import BINS, Histogram, HistogramObserver

#: Bins of the histograms that are compared.
KL_BINS = 2048


class Kl(HistogramObserver):
    """The magnitude whose quantized histogram is nearest to the original.

    With an integer type of more levels than there are bins (int16) nothing is gained by clipping: the greatest one.

    Parameters
    ----------
    candidates:
        Thresholds tried, evenly spaced.
    """

    name = "kl"

    def __init__(self, candidates: int = 128) -> None:
        super().__init__()
        if candidates < 2:
            raise ConfigError("kl: too few candidates", seen=str(candidates), allowed="2 or more")
        self._candidates = int(candidates)  # a config may say 1e2

    def threshold(self, levels: int) -> float:
        return kl_threshold(self.histogram, self.absmax, levels, self._candidates)


def kl_threshold(histogram: Histogram, absmax: float, levels: int, candidates: int = 128) -> float:
    """The threshold with the least divergence; the greatest one among equals."""
    merged = BINS // KL_BINS
    counts = np.zeros(KL_BINS)
    occupied = histogram.nonzero
    np.add.at(counts, np.arange(len(occupied)) // merged, occupied)
    last = int(np.flatnonzero(counts).max(initial=-1)) + 1
    if last <= levels + 1:
        return absmax
    best = (math.inf, absmax)
    for stop in np.unique(np.linspace(levels + 1, last, candidates).astype(int))[::-1]:
        found = divergence(counts[:last], int(stop), levels + 1)
        if found < best[0]:
            best = (found, min(float(stop) * merged * histogram.width, absmax))
    return best[1]


def divergence(counts: npt.NDArray[np.float64], stop: int, levels: int) -> float:
    """KL of the histogram clipped at a bin from the same one at ``levels`` levels; infinite where nothing is left."""
    p = counts[:stop].copy()
    p[-1] += counts[stop:].sum()
    level = np.arange(stop) * levels // stop
    used = p > 0
    sums = np.bincount(level, counts[:stop], levels)
    number = np.bincount(level, used, levels)
    q = np.where(used, (sums / np.maximum(number, 1))[level], 0.0)
    if q.sum() == 0.0:
        return math.inf
    p, q = p[used] / p.sum(), q[used] / q.sum()
    return float((p * np.log(p / np.maximum(q, 1e-12))).sum())
