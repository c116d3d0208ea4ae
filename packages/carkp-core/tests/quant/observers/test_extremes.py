"""Observers of extremes."""

from __future__ import annotations

import pytest
import torch

from carkp_core.errors import ConfigError
from carkp_core.quant.observers import FixedScale, MinMax, MovingAverage


def test_min_max_is_exact_whatever_the_sign_and_the_type() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(3, 8, 50, 50, generator=generator) * size for size in (1, 4, 2)]
    observer = MinMax()
    for batch in batches:
        observer.update(batch)
    greatest = max(float(batch.abs().max()) for batch in batches)
    assert observer.threshold(127) == observer.threshold(32767) == greatest
    negative = MinMax()
    negative.update(torch.tensor([-5.0, -1.0]))
    assert negative.threshold(127) == 5.0


def average(constant: float, *values: float) -> float:
    observer = MovingAverage(averaging_constant=constant)
    for value in values:
        observer.update(torch.tensor([value, -0.5]))
    return observer.threshold(127)


def test_moving_average_is_a_mean_at_first_and_then_follows() -> None:
    assert average(0.01, 1.0) == 1.0
    assert average(0.01, 1.0, 3.0) == 2.0
    assert average(0.01, 1.0, 3.0, 5.0) == pytest.approx(3.0)
    assert average(0.5, 1.0, 3.0, 5.0) == 3.5, "two are averaged, then the constant rules"
    assert average(1.0, 1.0, 3.0, 5.0) == 5.0


def test_the_first_batch_weighs_no_more_than_the_others() -> None:
    assert average(0.01, 1.0, *[2.0] * 49) == pytest.approx((1.0 + 2.0 * 49) / 50)


def test_a_fixed_scale_looks_at_nothing() -> None:
    observer = FixedScale(scale=0.25)
    observer.update(torch.tensor([1e6]))
    assert observer.threshold(127) == 0.25 * 127


@pytest.mark.parametrize("constant", [0.0, -1.0, 2.0])
def test_a_constant_that_is_no_share(constant: float) -> None:
    with pytest.raises(ConfigError, match="moving_average"):
        MovingAverage(constant)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_step(scale: float) -> None:
    with pytest.raises(ConfigError, match="fixed_scale"):
        FixedScale(scale)
