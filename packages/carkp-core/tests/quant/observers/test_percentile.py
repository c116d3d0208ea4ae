"""The percentile observer against numpy, and where zeros would mislead it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from carkp_core.errors import ConfigError
from carkp_core.quant.observers import Percentile

torch.set_num_threads(1)


def seen(percentile: float, *batches: torch.Tensor) -> Percentile:
    observer = Percentile(percentile)
    for batch in batches:
        observer.update(batch)
    return observer


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.9, 99.975])
@pytest.mark.parametrize("one_sided", [False, True])
def test_it_is_near_the_exact_one_while_the_range_grows(percentile: float, one_sided: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(2, 8, 50, 50, generator=generator) * (1 + i) for i in range(5)]
    if one_sided:
        batches = [batch.relu() for batch in batches]
    exact = np.percentile(np.abs(torch.cat([b.flatten() for b in batches]).numpy()), percentile)
    threshold = seen(percentile, *batches).threshold(127)
    if exact > 0:
        assert threshold == pytest.approx(exact, rel=0.02)
    else:
        # Half of the elements are 0, so the percentile is that of the others.
        others = np.concatenate([b[b > 0].numpy() for b in batches])
        assert threshold == pytest.approx(np.percentile(others, percentile), rel=0.02)


def test_everything_is_the_greatest_magnitude_even_where_the_sample_missed_it() -> None:
    values = torch.rand(400_000)
    values[1] = 7.0  # no stride of the first batch meets element 1
    observer = seen(100.0, values)
    assert observer.threshold(127) == 7.0
    assert seen(99.0, values).threshold(127) == pytest.approx(0.99, rel=0.01)


def test_few_elements_are_not_clipped() -> None:
    assert seen(99.975, torch.tensor([0.5, -1.0, 0.25])).threshold(127) == pytest.approx(1.0, rel=1e-3)


def test_a_rare_signal_among_zeros_is_not_clipped_away() -> None:
    values = torch.zeros(60_000)
    values[:6] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # 0.01 percent
    assert seen(99.975, values).threshold(127) == pytest.approx(6.0, rel=1e-3)


def test_outliers_are_clipped() -> None:
    values = torch.randn(60_000, generator=torch.Generator().manual_seed(0))
    assert seen(99.975, torch.cat([values, torch.tensor([60.0])])).threshold(127) < 5.0


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.1])
def test_a_percentage_that_is_none(percentile: float) -> None:
    with pytest.raises(ConfigError, match="percentile"):
        Percentile(percentile)
