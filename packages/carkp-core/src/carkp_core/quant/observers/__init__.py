"""Observers: from the values of a tensor over many batches to the greatest magnitude that it should represent.

=================  ===================================================================================================
``observer``       the base: exact extremes, defects, what subclasses must answer
``extremes``       ``min_max``, ``moving_average``, ``fixed_scale``
``histogram``      a streaming histogram of |x|, which the others look at
``percentile``     ``mse``, ``kl``: one file each, a function on a histogram and its observer
``mix``            offers what all of them say; held-back batches choose
=================  ===================================================================================================

A constructor's arguments are the config's ``activation_calibration_qkwargs``.
"""

from __future__ import annotations

from carkp_core.quant.observers.extremes import FixedScale, MinMax, MovingAverage
from carkp_core.quant.observers.histogram import Histogram, HistogramObserver
from carkp_core.quant.observers.kl import Kl
from carkp_core.quant.observers.mix import Mix
from carkp_core.quant.observers.mse import Mse
from carkp_core.quant.observers.observer import Observer
from carkp_core.quant.observers.percentile import Percentile

#: Names that ``qconfig_params`` may give, beside components of kind ``observer``.
OBSERVERS: dict[str, type[Observer]] = {
    "min_max": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "mse": Mse,
    "kl": Kl,
    "mix": Mix,
    "fixed_scale": FixedScale,
}

__all__ = [
    "OBSERVERS",
    "FixedScale",
    "Histogram",
    "HistogramObserver",
    "Kl",
    "MinMax",
    "Mix",
    "MovingAverage",
    "Mse",
    "Observer",
    "Percentile",
]
