"""The least divergence, against the published method written as loops, and on distributions with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.errors import ConfigError
from carkp_core.quant.observers import Kl
from carkp_core.quant.observers.kl import divergence

torch.set_num_threads(1)


def threshold(values: torch.Tensor, levels: int = 127) -> float:
    observer = Kl()
    observer.update(values)
    return observer.threshold(levels)


def slow_divergence(counts: list[float], stop: int, levels: int) -> float:
    """P and Q bin by bin."""
    p = [*counts[: stop - 1], counts[stop - 1] + sum(counts[stop:])]
    q = [0.0] * stop
    for level in range(levels):
        bins = [b for b in range(stop) if b * levels // stop == level]
        used = [b for b in bins if p[b] > 0]
        for b in used:
            q[b] = sum(counts[c] for c in bins) / len(used)
    total_p, total_q = sum(p), sum(q)
    return sum(
        pb / total_p * math.log((pb / total_p) / max(qb / total_q, 1e-12)) for pb, qb in zip(p, q, strict=True) if pb
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=20, max_size=60), st.integers(4, 16), st.data())
def test_it_is_the_published_sum(counts: list[int], levels: int, data: st.DataObject) -> None:
    stop = data.draw(st.integers(levels, len(counts)))
    if not any(counts[:stop]):
        assert divergence(np.asarray(counts, float), stop, levels) == math.inf
        return
    expected = slow_divergence([float(c) for c in counts], stop, levels)
    assert divergence(np.asarray(counts, float), stop, levels) == pytest.approx(expected, abs=1e-9)


def test_nothing_is_lost_by_levels_that_hold_equal_counts() -> None:
    assert divergence(np.full(64, 5.0), 64, 8) == pytest.approx(0.0, abs=1e-12)


def test_a_uniform_distribution_is_not_clipped() -> None:
    assert threshold(torch.linspace(-1, 1, 60_000)) == pytest.approx(1.0, rel=0.01)


def test_a_long_thin_tail_is_clipped_in_the_tail() -> None:
    values = torch.randn(60_000, generator=torch.Generator().manual_seed(0))
    assert 2.5 < threshold(values) <= float(values.abs().max())
    assert 2.5 < threshold(torch.cat([values, torch.tensor([60.0])])) < 12.0


def test_zeros_of_a_clamped_tensor_change_nothing() -> None:
    values = torch.randn(60_000, generator=torch.Generator().manual_seed(0)).abs()
    clamped = torch.cat([values[:20_000], torch.zeros(40_000)])
    assert threshold(clamped) == threshold(values[:20_000])


def test_more_levels_than_bins_clip_nothing() -> None:
    values = torch.cat([torch.randn(60_000), torch.tensor([60.0])])
    assert threshold(values, 32767) == 60.0


def test_too_few_candidates() -> None:
    with pytest.raises(ConfigError, match="kl"):
        Kl(candidates=1)
