from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from carkp_core.train.seeding import random_state, restore_random_state, seed_everything, seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_seeds_repeat_and_differ() -> None:
    seed_everything(1, 0)
    first = draw()
    seed_everything(1, 0)
    assert draw() == first
    seed_everything(1, 1)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_a_state_survives_a_file_that_holds_plain_values_only(tmp_path: Path) -> None:
    seed_everything(5)
    np.random.standard_normal()  # leaves a cached second value behind
    random.gauss(0, 1)
    torch.save(random_state(), tmp_path / "state")
    expected = (*draw(), random.gauss(0, 1), np.random.standard_normal())
    seed_everything(6)
    restore_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert (*draw(), random.gauss(0, 1), np.random.standard_normal()) == expected


def test_seeded_puts_everything_back() -> None:
    seed_everything(5)
    expected = draw()
    seed_everything(5)
    with seeded(9):
        inside = draw()
    assert inside != expected
    assert draw() == expected
