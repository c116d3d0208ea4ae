"""The observer that offers what the others say."""

from __future__ import annotations

import pytest
import torch

from carkp_core.errors import ConfigError
from carkp_core.quant.observers import Kl, MinMax, Mix, Mse, Observer, Percentile

torch.set_num_threads(1)


def test_the_candidates_are_the_other_observers_answers() -> None:
    alone: dict[str, Observer] = {
        "min_max": MinMax(), "percentile 99": Percentile(99.0), "percentile 99.99": Percentile(99.99), "mse": Mse(),
        "kl": Kl(),
    }  # fmt: skip
    mix = Mix(percentiles=[99.0, 99.99])
    generator = torch.Generator().manual_seed(0)
    for size in (1.0, 3.0):
        values = torch.randn(50_000, generator=generator) ** 3 * size
        for observer in (mix, *alone.values()):
            observer.update(values)
    for levels in (127, 32767):
        offered = mix.candidates(levels)
        assert list(offered) == list(alone)
        assert offered == {name: observer.threshold(levels) for name, observer in alone.items()}
    assert len(set(mix.candidates(127).values())) == 5
    assert mix.chooses


def test_without_batches_to_choose_by_it_is_mse() -> None:
    mix, mse = Mix(), Mse()
    values = torch.randn(10_000) ** 3
    mix.update(values)
    mse.update(values)
    assert mix.threshold(127) == mse.threshold(127)


def test_a_percentage_that_is_none() -> None:
    with pytest.raises(ConfigError, match="percentage"):
        Mix(percentiles=[99.0, 101.0])
