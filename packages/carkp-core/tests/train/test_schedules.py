from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from train_toys import make_context, make_trainer

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.schedules import (
    CosLrUpdater,
    LrUpdater,
    PolyLrUpdater,
    StepDecayLrUpdater,
    cosine,
    polynomial,
    warm_up,
)


def rates(folder: Path, updater: LrUpdater) -> list[float]:
    """The learning rate of each of 18 steps in 3 epochs; the optimizer's own is 0.01."""
    found: list[float] = []

    class Note(Callback):
        def on_step_end(self, training: Any, result: Any) -> None:
            found.append(training.learning_rate * 100)

    make_trainer(make_context(folder), callbacks=[updater, Note()]).fit()
    return found


def test_cosine_with_warm_up(tmp_path: Path) -> None:
    ours = rates(tmp_path, CosLrUpdater(warmup_len=1, warmup_by="epoch", stop_lr=0.001))
    assert ours[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    assert ours[6:] == pytest.approx([0.1 + 0.9 * cosine(n / 12) for n in range(12)])


def test_steps_of_decay(tmp_path: Path) -> None:
    ours = rates(tmp_path, StepDecayLrUpdater([1, 2], 0.1))
    assert ours == pytest.approx([1] * 6 + [0.1] * 6 + [0.01] * 6)
    by_step = rates(tmp_path, StepDecayLrUpdater([2], 0.5, decay_by="step"))
    assert by_step == pytest.approx([1, 1] + [0.5] * 16)


def test_polynomial(tmp_path: Path) -> None:
    ours = rates(tmp_path, PolyLrUpdater(power=2, warmup_len=2, warmup_by="step"))
    assert ours == pytest.approx([0.5, 1, *(polynomial(n / 16, 2) for n in range(16))])


@settings(max_examples=30, deadline=None)
@given(done=st.floats(-1, 2), power=st.floats(0.1, 4))
def test_factors_stay_in_range(done: float, power: float) -> None:
    assert 0 <= cosine(done) <= 1
    assert 0 <= polynomial(done, power) <= 1
    assert cosine(0) == polynomial(0, power) == 1
    assert warm_up(0, 0) == 1


def test_rates_are_recorded_where_asked(tmp_path: Path) -> None:
    make_trainer(make_context(tmp_path), callbacks=[CosLrUpdater(step_log_interval=9)], num_epochs=3).fit()
    lines = (tmp_path / "runs" / "float-0" / "metrics.jsonl").read_text().splitlines()
    assert [r["step"] for r in map(json.loads, lines) if set(r) == {"epoch", "step", "lr"}] == [9, 18]


@pytest.mark.parametrize(
    "make",
    [
        lambda: CosLrUpdater(warmup_by="hour"),  # type: ignore[arg-type]
        lambda: PolyLrUpdater(warmup_len=-1),
        lambda: StepDecayLrUpdater([1], decay_by="hour"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()
