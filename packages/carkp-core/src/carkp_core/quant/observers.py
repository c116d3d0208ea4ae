"""Observers: from the values of a tensor over many batches to the greatest magnitude that it should represent.

All are streaming: exact extremes of everything, and a histogram of |x| from every k-th element, so that memory and
most of the time do not depend on the number of batches. A histogram of 2048 bins starts at the first batch's
extreme and doubles its range (merging bins in pairs) when a greater value comes.

A constructor's arguments are the config's ``activation_calibration_qkwargs``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carkp_core.errors import ConfigError

BINS = 2048
#: Elements of one batch that enter the histogram, about.
SAMPLE = 1 << 16


class Observer:
    """Base: exact extremes. ``threshold`` is the magnitude that the integer range should end at."""

    def __init__(self) -> None:
        self.batches = 0
        self.low, self.high = math.inf, -math.inf
        self.defect = ""

    def update(self, values: Tensor) -> None:
        """Take in one batch."""
        low, high = (float(v) for v in torch.aminmax(values.detach()))
        if math.isnan(low) or math.isnan(high):
            self.defect = "NaN"
        elif math.isinf(low) or math.isinf(high):
            self.defect = self.defect or "an infinite value"
        else:
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.collect(values.detach(), max(abs(low), abs(high)))
        self.batches += 1

    def collect(self, values: Tensor, absmax: float) -> None:
        """What else the observer keeps; ``values`` are finite."""

    @property
    def absmax(self) -> float:
        """The greatest magnitude seen."""
        return max(abs(self.low), abs(self.high)) if self.batches and not self.defect else 0.0

    def threshold(self, levels: int) -> float:
        """The magnitude for ``levels`` positive steps (127 or 32767)."""
        raise NotImplementedError(type(self).__name__)


class MinMax(Observer):
    """The greatest magnitude of all batches."""

    def threshold(self, levels: int) -> float:
        return self.absmax


class MovingAverage(Observer):
    """The batches' greatest magnitudes, averaged: ``m += averaging_constant (absmax - m)``."""

    def __init__(self, averaging_constant: float = 0.01) -> None:
        super().__init__()
        if not 0.0 < averaging_constant <= 1.0:
            seen = str(averaging_constant)
            raise ConfigError("moving_average: averaging_constant is a share", seen=seen, allowed="(0, 1]")
        self._constant = averaging_constant
        self._average: float | None = None

    def collect(self, values: Tensor, absmax: float) -> None:
        before = absmax if self._average is None else self._average
        self._average = before + self._constant * (absmax - before)

    def threshold(self, levels: int) -> float:
        return self._average or 0.0


class Histogram(Observer):
    """Base of the observers that look at the distribution of |x|."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: npt.NDArray[np.float64] = np.zeros(BINS)
        self.limit = 0.0

    def collect(self, values: Tensor, absmax: float) -> None:
        if absmax == 0.0:
            self.counts[0] += min(values.numel(), SAMPLE)
            return
        if self.limit == 0.0:
            self.limit = absmax
        while absmax > self.limit:
            self.limit *= 2.0
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS - len(merged))])
        flat = values.reshape(-1)
        # An odd stride does not beat with powers of two in the shape.
        sample = flat[:: max(1, flat.numel() // SAMPLE) | 1].abs().float()
        self.counts += torch.histc(sample, BINS, 0.0, self.limit).double().cpu().numpy()

    @property
    def _width(self) -> float:
        return self.limit / BINS

    def _centres(self) -> npt.NDArray[np.float64]:
        return (np.arange(BINS, dtype=np.float64) + 0.5) * self._width


class Percentile(Histogram):
    """The magnitude that ``percentile`` percent of the elements do not exceed."""

    def __init__(self, percentile: float = 99.975) -> None:
        super().__init__()
        if not 0.0 < percentile <= 100.0:
            raise ConfigError("percentile: the percentile is a percentage", seen=str(percentile), allowed="(0, 100]")
        self._share = percentile / 100.0

    def threshold(self, levels: int) -> float:
        if self._share >= 1.0 or self.limit == 0.0:
            return self.absmax
        cumulated = np.cumsum(self.counts)
        wanted = self._share * cumulated[-1]
        bin_index = int(np.searchsorted(cumulated, wanted))
        below = cumulated[bin_index - 1] if bin_index else 0.0
        inside = (wanted - below) / max(self.counts[bin_index], 1.0)
        return min((bin_index + inside) * self._width, self.absmax) or self.absmax


class Mse(Histogram):
    """The magnitude with the least squared error of rounding and clipping, over the histogram."""

    def __init__(self, candidates: int = 100) -> None:
        super().__init__()
        if candidates < 2:
            raise ConfigError("mse: too few candidates", seen=str(candidates), allowed="2 or more")
        self._candidates = candidates

    def threshold(self, levels: int) -> float:
        if self.limit == 0.0:
            return self.absmax
        centres, best = self._centres(), (math.inf, self.absmax)
        for share in np.linspace(1.0, 1.0 / self._candidates, self._candidates):
            limit = self.absmax * float(share)
            best = min(best, (squared_error(centres, self.counts, limit / levels, levels, self._width), limit))
        return best[1]


def squared_error(
    centres: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], scale: float, levels: int, width: float
) -> float:
    """Sum of squared errors of round and clip; inside a bin much wider than a step the error is the step's own."""
    clipped = np.minimum(np.rint(centres / scale), levels) * scale
    error = (centres - clipped) ** 2
    if width > scale / 4:
        inside = centres < (levels + 0.5) * scale
        error = np.where(inside, np.maximum(error * (width <= scale), scale**2 / 12.0), error)
    return float((counts * error).sum())


class Kl(Histogram):
    """The magnitude whose quantized histogram is nearest to the original in Kullback-Leibler divergence."""

    def __init__(self, candidates: int = 128) -> None:
        super().__init__()
        if candidates < 2:
            raise ConfigError("kl: too few candidates", seen=str(candidates), allowed="2 or more")
        self._candidates = candidates

    def threshold(self, levels: int) -> float:
        last = int(np.flatnonzero(self.counts).max(initial=0)) + 1 if self.limit else 0
        if last <= 128:
            return self.absmax
        best = (math.inf, self.absmax)
        for stop in np.unique(np.linspace(128, last, self._candidates).astype(int)):
            limit = min(float(stop) * self._width, self.absmax)
            best = min(best, (_divergence(self.counts[:last], int(stop), 128), limit))
        return best[1]


def _divergence(counts: npt.NDArray[np.float64], stop: int, levels: int) -> float:
    """KL of the clipped histogram from the same one at ``levels`` levels."""
    reference = counts[:stop].copy()
    reference[-1] += counts[stop:].sum()
    group = np.arange(stop) * levels // stop
    filled = counts[:stop] > 0
    sums = np.bincount(group, counts[:stop], levels)
    number = np.bincount(group, filled, levels)
    spread = np.where(filled, (sums / np.maximum(number, 1))[group], 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1e-30)
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))).sum())


class FixedScale(Observer):
    """A given step, whatever comes."""

    def __init__(self, scale: float = 1.0 / 128.0) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0.0):
            raise ConfigError("fixed_scale: the scale is no step", seen=str(scale), allowed="a positive number")
        self._scale = scale

    def threshold(self, levels: int) -> float:
        return self._scale * levels


#: Names that ``qconfig_params`` may give, beside components of kind ``observer``.
OBSERVERS: dict[str, Any] = {
    "min_max": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "mse": Mse,
    "kl": Kl,
    "fixed_scale": FixedScale,
}
