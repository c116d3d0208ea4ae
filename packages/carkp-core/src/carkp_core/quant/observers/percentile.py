"""The percentile observer."""

from __future__ import annotations

import numpy as np

from carkp_core.errors import ConfigError
from carkp_core.quant.observers.histogram import Histogram, HistogramObserver


class Percentile(HistogramObserver):
    """The magnitude that ``percentile`` percent of the elements do not exceed.

    Where that many are exactly 0, the percentile is that of the others: a rare signal is not clipped away.
    """

    name = "percentile"

    def __init__(self, percentile: float = 99.975) -> None:
        super().__init__()
        self._share = share_of(percentile)

    def threshold(self, levels: int) -> float:
        return min(percentile_threshold(self.histogram, self._share), self.absmax)


def share_of(percentile: float) -> float:
    """A percentage as a share. Raises ConfigError when it is none."""
    if not 0.0 < percentile <= 100.0:
        raise ConfigError("percentile: the percentile is a percentage", seen=str(percentile), allowed="(0, 100]")
    return percentile / 100.0


def percentile_threshold(histogram: Histogram, share: float) -> float:
    """The magnitude that a share of the elements do not exceed, linear inside a bin; the limit for a share of 1."""
    counts = histogram.nonzero
    if share >= 1.0 or not counts.size:
        return histogram.limit
    above = (1.0 - share) * histogram.total
    if above >= counts.sum():
        above = (1.0 - share) * float(counts.sum())
    # Counted from above: exact for few elements, and zeros take no part.
    beyond = np.cumsum(counts[::-1])[::-1]
    index = int(np.flatnonzero(beyond >= above).max())
    inside = (beyond[index] - above) / counts[index]
    return float((index + inside) * histogram.width)
