"""Observers that look at extremes only, or at nothing."""

from __future__ import annotations

import math

from torch import Tensor

from carkp_core.errors import ConfigError
from carkp_core.quant.observers.observer import Observer


class MinMax(Observer):
    """The greatest magnitude of all batches."""

    name = "min_max"

    def threshold(self, levels: int) -> float:
        return self.absmax


class MovingAverage(Observer):
    """The batches' greatest magnitudes, averaged: ``m += c (absmax - m)``.

    ``c`` is ``averaging_constant``, but 1 / n at the n-th batch while that is more: a plain mean at first, so that the
    first batch weighs no more than the others.
    """

    name = "moving_average"

    def __init__(self, averaging_constant: float = 0.01) -> None:
        super().__init__()
        if not 0.0 < averaging_constant <= 1.0:
            seen = str(averaging_constant)
            raise ConfigError("moving_average: averaging_constant is a share", seen=seen, allowed="(0, 1]")
        self._constant = averaging_constant
        self._average, self._averaged = 0.0, 0

    def collect(self, flat: Tensor, absmax: float) -> None:
        self._averaged += 1
        self._average += max(self._constant, 1.0 / self._averaged) * (absmax - self._average)

    def threshold(self, levels: int) -> float:
        return self._average


class FixedScale(Observer):
    """A given step, whatever comes."""

    name = "fixed_scale"

    def __init__(self, scale: float = 1.0 / 128.0) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0.0):
            raise ConfigError("fixed_scale: the scale is no step", seen=str(scale), allowed="a positive number")
        self._scale = scale

    def threshold(self, levels: int) -> float:
        return self._scale * levels
