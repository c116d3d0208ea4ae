from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from carkp_core.testing import CheckFailed, check_dataset


class Points(torch.utils.data.Dataset[Any]):
    """Six images with three points each."""

    def __init__(self, **broken: Any) -> None:
        self.broken = broken
        self.skeleton = SimpleNamespace(flip_index=broken.get("flip_index", (0, 2, 1)))

    def __len__(self) -> int:
        return self.broken.get("length", 6)

    def __getitem__(self, index: int) -> dict[str, Any]:
        seed = None if self.broken.get("random") else index
        rng = np.random.default_rng(seed)
        sample = {
            "img": rng.integers(0, 256, (20, 30, 3), dtype=np.uint8),
            "gt_ldmk": rng.uniform(0, 19, (3, 2)).astype(np.float32),
            "gt_ldmk_attr": np.ones(3, np.float32),
            "index": index,
        }
        sample |= self.broken.get("sample", {})
        if index == 3:
            sample |= self.broken.get("third", {})
        return sample


def test_a_sound_data_set():
    check_dataset(Points(), keys=("img", "gt_ldmk"))


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"length": 0}, "the data set is empty"),
        ({"random": True}, "asked for twice differs in img"),
        ({"sample": {"img": np.zeros((20, 30), np.uint8)}}, r"img of sample 0 is uint8 of shape \(20, 30\)"),
        ({"sample": {"gt_ldmk_attr": np.full(3, 2.0)}}, r"gt_ldmk_attr of sample 0 holds \[2.0\]"),
        ({"sample": {"gt_ldmk": np.full((3, 2), 25.0)}}, "valid points outside its image"),
        ({"sample": {"gt_ldmk": np.zeros((4, 2))}}, r"has gt_ldmk \(4, 2\) and gt_ldmk_attr \(3,\)"),
        ({"third": {"more": 1}}, "have other keys: more"),
        ({"third": {"gt_ldmk": np.zeros((2, 2)), "gt_ldmk_attr": np.zeros(2)}}, r"samples have \[2, 3\] keypoints"),
        ({"flip_index": (1, 2, 0)}, "does not undo itself"),
        ({"flip_index": (0, 1)}, "the skeleton has 2 keypoints"),
        ({"unpicklable": lambda: None}, "pickling raises"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_each_defect_is_found(broken, what):
    with pytest.raises(CheckFailed, match=what):
        check_dataset(Points(**broken), workers=0)


def test_missing_keys_are_named_beside_those_there():
    with pytest.raises(CheckFailed, match="sample 0 has no mask; it has img"):
        check_dataset(Points(), keys=("img", "mask"), workers=0)
