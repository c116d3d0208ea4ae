"""The streaming histogram: nothing lost while the range grows, and a sample that meets every channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.quant.observers import Histogram, HistogramObserver
from carkp_core.quant.observers.histogram import BINS, SAMPLE, sampled
from carkp_core.quant.observers.observer import flattened

torch.set_num_threads(1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=6))
def test_a_histogram_neither_loses_nor_grows(sizes: list[float]) -> None:
    observer = HistogramObserver()
    for size in sizes:
        observer.update(torch.linspace(-size, size, 1001))
    histogram = observer.histogram
    assert histogram.counts.shape == (BINS,)
    assert histogram.total == 1001 * len(sizes)
    assert observer.absmax <= histogram.limit <= 2 * observer.absmax


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merging_bins_is_the_same_as_a_wide_histogram_from_the_start(sizes: list[float], random: object) -> None:
    values = [torch.rand(500, generator=torch.Generator().manual_seed(i)) * size for i, size in enumerate(sizes)]
    histogram = Histogram()
    for magnitudes in values:
        histogram.add(magnitudes, float(magnitudes.max()))
    edges = np.arange(BINS + 1) * histogram.width
    expected = np.histogram(torch.cat(values).double().numpy(), edges)[0]
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 3, "float32 beside an edge"


def test_zeros_are_known_apart_from_small_values() -> None:
    histogram = Histogram()
    histogram.add(torch.zeros(5), 0.0)
    assert (histogram.total, histogram.zeros, histogram.nonzero.size) == (5, 5, 0)
    histogram.add(torch.tensor([0.0, 1e-9, 1.0]), 1.0)
    assert (histogram.total, histogram.zeros) == (8, 6)
    assert histogram.nonzero[0] == 1
    assert histogram.nonzero.sum() == 2
    assert histogram.counts[0] == 7


def test_the_greatest_value_falls_into_the_last_bin() -> None:
    histogram = Histogram()
    histogram.add(torch.tensor([0.1, 0.3]), 0.3)
    assert histogram.counts[-1] == 1


@pytest.mark.parametrize("shape", [(16, 96, 64, 64), (8, 240, 32, 32), (128, 12, 32, 32), (3, 7, 5, 2)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_sample_meets_all_channels_rows_and_columns_equally(
    shape: tuple[int, int, int, int], memory_format: torch.memory_format
) -> None:
    for axis, size in enumerate(shape):
        coordinate = torch.arange(size, dtype=torch.float32).view([-1 if a == axis else 1 for a in range(4)])
        values = coordinate.expand(shape).contiguous(memory_format=memory_format)
        sample = sampled(flattened(values), batch=3)
        assert len(sample) <= SAMPLE
        met = np.bincount(sample.int().numpy(), minlength=size)
        assert met.max() - met.min() <= 1 + 0.02 * met.max(), f"axis {axis}"


def test_batches_are_sampled_at_different_places() -> None:
    flat = torch.arange(3.0 * SAMPLE)
    starts = {int(sampled(flat, batch)[0]) for batch in range(8)}
    assert len(starts) > 2
    small = torch.arange(100.0)
    assert torch.equal(sampled(small, 5), small), "a small tensor is looked at whole"
