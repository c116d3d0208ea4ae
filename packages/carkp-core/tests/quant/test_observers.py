"""Observers: exact extremes, constant memory, thresholds that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.errors import ConfigError
from carkp_core.quant.observers import BINS, OBSERVERS, Histogram, Kl, MinMax, MovingAverage, Mse, Percentile

torch.set_num_threads(1)


def batches(seed: int = 0, growing: bool = True) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 8, 50, 50, generator=generator) * (1 + i if growing else 1) for i in range(5)]


def test_min_max_is_exact() -> None:
    observer = MinMax()
    for batch in batches():
        observer.update(batch)
    assert observer.threshold(127) == max(float(b.abs().max()) for b in batches())


def test_moving_average_follows() -> None:
    observer = MovingAverage(averaging_constant=0.5)
    for value in (1.0, 3.0):
        observer.update(torch.tensor([value, -0.5]))
    assert observer.threshold(127) == 2.0


def test_percentile_is_near_the_exact_one_while_the_range_grows() -> None:
    for percentile in (90.0, 99.0, 99.9):
        observer = Percentile(percentile)
        for batch in batches():
            observer.update(batch)
        exact = np.percentile(np.abs(torch.cat([b.flatten() for b in batches()]).numpy()), percentile)
        assert observer.threshold(127) == pytest.approx(exact, rel=0.02)
    everything = Percentile(100.0)
    for batch in batches():
        everything.update(batch)
    assert everything.threshold(127) == everything.absmax


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6))
def test_a_histogram_neither_loses_nor_grows(sizes: list[float]) -> None:
    observer = Histogram()
    for size in sizes:
        observer.update(torch.linspace(-size, size, 1001))
    assert observer.counts.shape == (BINS,)
    assert observer.counts.sum() == 1001 * len(sizes)
    assert observer.limit >= observer.absmax


@pytest.mark.parametrize("kind", [Mse, Kl, Percentile])
def test_outliers_are_clipped_and_plain_tensors_hardly(kind: type[Histogram]) -> None:
    plain, spiky = kind(), kind()
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    plain.update(values)
    spiky.update(torch.cat([values, torch.tensor([60.0])]))
    assert plain.threshold(127) > 2.5
    assert spiky.threshold(127) < 30.0
    assert spiky.absmax == 60.0


def test_mse_beats_min_max_in_squared_error() -> None:
    values = torch.randn(100_000)
    observer = Mse()
    observer.update(values)

    def error(threshold: float) -> float:
        scale = threshold / 127
        return float(((values / scale).round().clamp(-127, 127) * scale - values).square().mean())

    assert error(observer.threshold(127)) < error(observer.absmax)


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "NaN"), (float("inf"), "an infinite value")])
def test_defects_are_remembered(value: float, said: str) -> None:
    observer = OBSERVERS["percentile"]()
    observer.update(torch.ones(4))
    observer.update(torch.tensor([1.0, value]))
    observer.update(torch.ones(4))
    assert observer.defect == said
    assert observer.batches == 3


def test_a_constant_zero_tensor_has_threshold_zero() -> None:
    for kind in (MinMax, MovingAverage, Percentile, Mse, Kl):
        observer = kind()
        observer.update(torch.zeros(100))
        assert observer.threshold(127) == 0.0


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("percentile", {"percentile": 0.0}),
        ("moving_average", {"averaging_constant": 2.0}),
        ("fixed_scale", {"scale": -1.0}),
    ],
)
def test_impossible_arguments_are_refused(kind: str, arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=kind):
        OBSERVERS[kind](**arguments)
