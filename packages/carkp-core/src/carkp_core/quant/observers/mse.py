"""The observer of the least squared error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_core.errors import ConfigError
from carkp_core.quant.observers.histogram import Histogram, HistogramObserver

Floats = npt.NDArray[np.floating[Any]]

#: The least threshold tried, in octaves below the greatest magnitude.
_OCTAVES = 12.0


class Mse(HistogramObserver):
    """The magnitude with the least squared error of rounding and clipping, over the histogram.

    Parameters
    ----------
    candidates:
        Thresholds tried, spaced by ratios, and as many again round the best of them.
    """

    name = "mse"

    def __init__(self, candidates: int = 50) -> None:
        super().__init__()
        if candidates < 2:
            raise ConfigError("mse: too few candidates", seen=str(candidates), allowed="2 or more")
        self._candidates = int(candidates)  # a config may say 1e2

    def threshold(self, levels: int) -> float:
        return mse_threshold(self.histogram, self.absmax, levels, self._candidates)


def mse_threshold(histogram: Histogram, absmax: float, levels: int, candidates: int = 50) -> float:
    """The threshold with the least ``squared_error``; the greatest one among equals."""
    counts = histogram.nonzero
    if not counts.size:
        return absmax
    edges = np.arange(len(counts) + 1) * histogram.width

    def least(thresholds: Floats) -> float:
        errors = [squared_error(counts, edges, float(threshold), levels) for threshold in thresholds]
        return float(thresholds[int(np.argmin(errors))])

    spacing = 2.0 ** (_OCTAVES / (candidates - 1))
    coarse = least(absmax * spacing ** -np.arange(candidates))
    return least(np.minimum(np.linspace(coarse * spacing, coarse / spacing, candidates), absmax))


def squared_error(counts: npt.NDArray[np.int64], edges: Floats, threshold: float, levels: int) -> float:
    """Sum of squared errors of rounding to steps of threshold / levels and clipping; inside a bin |x| is uniform.

    With edges a and b of a bin, the sum of its count's errors is count / (b - a) times the integral of the squared
    error from a to b, which is exact for steps finer than a bin as well as for coarser ones.

    Parameters
    ----------
    counts, edges:
        A histogram of equally wide bins, [bins] and [bins + 1].
    """
    step = threshold / levels
    steps = np.minimum(edges, threshold) / step
    whole = np.rint(steps)
    rest = steps - whole
    # The integral of (u - round(u))**2 from 0: 1/12 for each whole step, then a third of the rest's cube.
    rounding = step**3 * (whole / 12.0 + rest * rest * rest / 3.0)
    beyond = np.maximum(edges - threshold, 0.0)
    clipping = beyond * beyond * beyond / 3.0
    return float(counts @ np.diff(rounding + clipping) / edges[1])
