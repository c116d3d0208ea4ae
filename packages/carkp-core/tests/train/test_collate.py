from __future__ import annotations

import numpy as np
import torch

from carkp_core.train.collate import batch_samples, default_collate


def test_tensors_arrays_and_numbers_are_stacked_and_the_rest_listed() -> None:
    samples = [
        {"t": torch.ones(2), "a": np.zeros(3, np.float32), "n": i, "s": f"{i}", "r": torch.ones(i)} for i in (1, 2)
    ]
    batch = default_collate(samples)
    assert batch["t"].shape == (2, 2)
    assert batch["a"].shape == (2, 3)
    assert batch["a"].dtype == torch.float32
    assert batch["n"].tolist() == [1, 2]
    assert batch["s"] == ["1", "2"]
    assert [len(t) for t in batch["r"]] == [1, 2], "ragged tensors are listed"


def test_the_samples_of_a_batch_are_counted_at_its_first_value() -> None:
    assert batch_samples({"seed": 3, "names": ["a", "b", "c"]}) == 3
    assert batch_samples({"img": torch.zeros(4, 1)}) == 4
    assert batch_samples({"seed": 3}) == 1
    assert batch_samples(torch.zeros(5, 2)) == 5
