"""The observer that leaves the choice to held-back batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from carkp_core.quant.observers.histogram import HistogramObserver
from carkp_core.quant.observers.kl import kl_threshold
from carkp_core.quant.observers.mse import mse_threshold
from carkp_core.quant.observers.percentile import percentile_threshold, share_of


class Mix(HistogramObserver):
    """Offers what min_max, several percentiles, mse and kl say of one histogram.

    Parameters
    ----------
    percentiles:
        The percentiles on offer.
    """

    chooses = True
    name = "mix"

    def __init__(self, percentiles: Sequence[float] = (99.0, 99.9, 99.975, 99.99, 99.999)) -> None:
        super().__init__()
        self._shares = {f"percentile {percentile:g}": share_of(percentile) for percentile in percentiles}

    def candidates(self, levels: int) -> Mapping[str, float]:
        histogram, absmax = self.histogram, self.absmax
        found = {"min_max": absmax}
        for name, share in self._shares.items():
            found[name] = min(percentile_threshold(histogram, share), absmax)
        found["mse"] = mse_threshold(histogram, absmax, levels)
        found["kl"] = kl_threshold(histogram, absmax, levels)
        return found

    def threshold(self, levels: int) -> float:
        """Without anything to choose by: the least squared error of the histogram itself."""
        return mse_threshold(self.histogram, self.absmax, levels)
