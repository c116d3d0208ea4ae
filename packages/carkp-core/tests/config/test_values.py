from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from carkp_core.config.values import argument_hints, described, fits


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 3), (float, 3), (float, 2.5), (int, 3.0), (int, 10**400), (int | float, 2.5),
        (int | None, None), (str | Path, "a"), (Path, "a"),
        (Sequence[int], [1, 2]), (Sequence[int], (1, 2)), (tuple[int, int], [1, 2]), (tuple[int, ...], [1, 2, 3]),
        (Sequence[str], "abc"), (Mapping[str, int], {"a": 1}), (Literal["fx"], "fx"), (Any, object()),
        (torch.nn.Module, "anything"), (int, {"type": "Something"}), (Sequence[int], [{"type": "Something"}]),
        (int, torch.zeros(1)), ("not evaluated", 3),
    ],
)  # fmt: skip
def test_what_fits(hint, value):
    assert fits(hint, value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "320"), (int, 2.5), (int, float("nan")), (int, float("inf")), (int | None, 0.5),
        (Sequence[int], [1, 2.5]), (float, "0.1"), (int | None, "a"), (str, 3), (Path, 3), (Sequence[int], 3),
        (Sequence[int], "12"),
        (Sequence[int], ["1"]), (tuple[int, int], (1, 2, 3)), (list[str], "abc"), (Mapping[str, int], [1]),
        (Literal["fx"], "eager"), (int, [1]), (bool, "yes"), (None, 1), (str | None, {"a": 1}),
    ],
)  # fmt: skip
def test_what_does_not(hint, value):
    assert not fits(hint, value)


def test_annotations_that_cannot_be_evaluated_say_nothing():
    def part(size: Nowhere): ...  # noqa: F821

    assert argument_hints(part) == {}


@pytest.mark.parametrize(("hint", "text"), [(int, "int"), (int | None, "int | None"), (Sequence[int], "Sequence[int]")])
def test_description(hint, text):
    assert described(hint) == text


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.utils.data.DataLoader, torch.nn.Conv2d])
def test_defaults_of_torchs_own_classes_fit_their_annotations(kind):
    hints = argument_hints(kind)
    given = {k: p.default for k, p in inspect.signature(kind).parameters.items() if p.default not in (p.empty, None)}
    assert [k for k, value in given.items() if k in hints and not fits(hints[k], value)] == []
