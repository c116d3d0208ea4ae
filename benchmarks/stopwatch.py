"""Timing of things that are compared: in turns, so that a disturbance hits all, and the best of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def best_seconds(ways: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """The least seconds of each way over ``rounds``, after one round that isn't counted."""
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            seconds = time.perf_counter() - started
            if turn:
                best[name] = min(best[name], seconds)
    return best
