"""Histograms add up exactly, and know what rounding costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.quant.sensitivity.histogram import HALF, SAMPLE, Histogram, histogram_of, joint


def of(values: torch.Tensor) -> Histogram:
    return histogram_of(values, float(values.abs().max()))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=5))
def test_parts_add_up_to_the_whole_in_any_order(parts: list[list[float]]) -> None:
    tensors = [torch.tensor(part) for part in parts]
    whole, forward = of(torch.cat(tensors)), joint(map(of, tensors))
    backward = joint(map(of, reversed(tensors)))
    for found in (forward, backward):
        assert (found.limit, found.zeros) == (whole.limit, whole.zeros)
        np.testing.assert_array_equal(found.counts, whole.counts)
    assert whole.total == sum(map(len, parts))


def test_each_value_is_in_the_bin_that_covers_it() -> None:
    values = torch.tensor([-3.0, -0.001, 0.0, 0.001, 2.5, 4.0])
    found = of(values)
    assert found.limit == 4.0
    assert found.zeros == 1
    edges = (np.arange(2 * HALF + 1) - HALF) * found.width
    expected, _ = np.histogram(values[values != 0].double().numpy(), edges)
    np.testing.assert_array_equal(found.counts, expected)


def test_a_large_tensor_is_sampled_evenly() -> None:
    values = torch.arange(20 * SAMPLE, dtype=torch.float32)
    found = of(values)
    assert SAMPLE / 2 <= found.total <= 2 * SAMPLE
    shares = found.counts[HALF:] / found.total
    filled = shares[: int(20 * SAMPLE / found.width)]
    assert filled.max() < 1.2 * filled.min()


def test_the_sample_has_the_histogram_and_the_extremes() -> None:
    values = torch.tensor([0.0, 0.0, 0.3, 0.7, -0.9])
    found = of(values)
    sample = found.sample(-0.9, 0.7)
    assert len(sample) == found.total + 2
    assert (float(sample.min()), float(sample.max())) == pytest.approx((-0.9, 0.7))
    again = histogram_of(sample[:-2], 1.0)
    np.testing.assert_array_equal(again.counts, found.counts)
    assert again.zeros == 2


@pytest.mark.parametrize(("scale", "hi"), [(0.05, 127), (0.02, 100), (0.004, 127), (1e-5, 127)])
def test_rounding_noise_is_that_of_the_values(scale: float, hi: int) -> None:
    values = torch.randn(40_000, generator=torch.Generator().manual_seed(0)).relu()
    found = of(values)
    rounded = torch.clamp(torch.round(values / scale), 0, hi) * scale
    expected = float(((rounded - values) ** 2).sum())
    assert found.rounding_noise(scale, 0, hi) == pytest.approx(expected, rel=0.03)


def test_zeros_cost_nothing() -> None:
    assert histogram_of(torch.zeros(9), 0.0).rounding_noise(0.1, -128, 127) == 0.0
    assert histogram_of(torch.zeros(9), 0.0).total == 9
