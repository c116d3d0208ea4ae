"""The least squared error, against published optima and against errors that are computed element by element."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from carkp_core.errors import ConfigError
from carkp_core.quant.observers import Mse
from carkp_core.quant.observers.mse import squared_error

torch.set_num_threads(1)


def quantiles(count: int = 1 << 16) -> Tensor:
    """Evenly spaced probabilities, without 0 and 1: a distribution's quantiles at them have no sampling noise."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def gaussian() -> Tensor:
    return (torch.special.ndtri(quantiles())).float()


def laplace() -> Tensor:
    p = quantiles() - 0.5
    return (-torch.sign(p) * torch.log1p(-2 * p.abs())).float()


def true_error(values: Tensor, threshold: float, levels: int) -> float:
    step = threshold / levels
    return float(((values.double() / step).round().clamp(-levels, levels) * step - values).square().sum())


def threshold(values: Tensor, levels: int) -> float:
    observer = Mse()
    observer.update(values)
    return observer.threshold(levels)


@pytest.mark.parametrize(
    ("distribution", "bits", "optimum"),
    # Optimal clipping in standard deviations (Gaussian) and in units of b (Laplace): Banner et al. 2018, table of ACIQ.
    [
        ("gaussian", 4, 2.55), ("gaussian", 3, 2.15), ("laplace", 3, 3.89), ("laplace", 4, 5.03),
    ],
)  # fmt: skip
def test_published_optima(distribution: str, bits: int, optimum: float) -> None:
    values = gaussian() if distribution == "gaussian" else laplace()
    # Their grid has 2**bits steps over the whole range, ours 2 * levels; one more level makes little difference.
    assert threshold(values, 2 ** (bits - 1)) == pytest.approx(optimum, rel=0.05)


@pytest.mark.parametrize("make", [gaussian, laplace, lambda: gaussian().relu(), lambda: gaussian().exp()])
@pytest.mark.parametrize("levels", [7, 127])
def test_no_other_threshold_has_a_lower_error(make: object, levels: int) -> None:
    values: Tensor = make()  # type: ignore[operator]
    greatest = float(values.abs().max())
    chosen = true_error(values, threshold(values, levels), levels)
    least = min(true_error(values, greatest * share, levels) for share in np.linspace(0.02, 1.0, 200))
    assert chosen <= least * 1.02


def test_sixteen_bits_hardly_clip() -> None:
    values = gaussian()
    assert threshold(values, 32767) == pytest.approx(float(values.max()), rel=0.02)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 1.0), st.sampled_from([3, 7, 127, 1000]), st.integers(0, 5))
def test_the_histograms_error_is_the_elements(share: float, levels: int, seed: int) -> None:
    values = torch.randn(60_000, generator=torch.Generator().manual_seed(seed)) ** 3
    observer = Mse()
    observer.update(values)
    counts = observer.histogram.nonzero
    edges = np.arange(len(counts) + 1) * observer.histogram.width
    found = squared_error(counts, edges, observer.absmax * share, levels)
    assert found == pytest.approx(true_error(values, observer.absmax * share, levels), rel=0.15)


@pytest.mark.parametrize("outlier", [20.0, 40.0, 100.0])
def test_one_outlier_is_clipped_as_far_as_rounding_gains(outlier: float) -> None:
    """(outlier - t)**2 + N (t / 127)**2 / 12 is least at outlier / (1 + N / (12 * 127**2))."""
    values = gaussian()[::2]
    expected = outlier / (1 + len(values) / (12 * 127**2))
    assert threshold(torch.cat([values, torch.tensor([outlier])]), 127) == pytest.approx(expected, rel=0.02)


def test_too_few_candidates() -> None:
    with pytest.raises(ConfigError, match="mse"):
        Mse(candidates=1)
