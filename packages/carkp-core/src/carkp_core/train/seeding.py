"""Seeds and the state of the global random generators.

Order and augmentation of an epoch never use these generators (see ``samplers``); what does is a model's own
randomness, such as dropout. Its state goes into the checkpoint so that a resumed run draws the same numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RandomState = dict[str, Any]


def seed_everything(*parts: int) -> None:
    """Seed Python's, numpy's and torch's global generators from integers, such as ``(seed, rank)``."""
    words = np.random.SeedSequence([part & 0xFFFFFFFF for part in parts]).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.default_generator.manual_seed(int(words[2]) << 32 | int(words[3]))
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(int(words[2]))


def random_state() -> RandomState:
    """Return the state of the global generators, in tensors and plain values only."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put the global generators back to a state that ``random_state`` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed the global generators inside the block and put them back after it."""
    before = random_state()
    seed_everything(*parts)
    try:
        yield
    finally:
        restore_random_state(before)
