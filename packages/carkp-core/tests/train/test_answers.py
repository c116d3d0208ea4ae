"""Answers are written as they come, appear when all is well, and are joined in the data set's order."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.train.answers import AnswerWriter, mapped_back, writing_answers
from carkp_core.train.distributed import World
from carkp_core.train.evaluation import Evaluated


def evaluated(first: int, count: int, **more: Any) -> Evaluated:
    """Answers (index, 10 index, confidence 0.5) of samples ``first`` on."""
    index = torch.arange(first, first + count)
    points = torch.stack([index, 10 * index, torch.full_like(index, 1) * 0.5], dim=1)[:, None].float()
    return Evaluated({"index": index, **more}, points, (), 0)


def test_each_batch_is_written_when_it_comes() -> None:
    file = io.StringIO()
    writer = AnswerWriter(file, ())
    writer.on_evaluated(evaluated(0, 2, img_name=["a.png", "b.png"]))
    assert len(file.getvalue().splitlines()) == 2
    writer.on_evaluated(evaluated(2, 1))
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["img_name"] for line in lines] == ["a.png", "b.png", ""]
    assert lines[2] == {"img_name": "", "index": 2, "keypoints": [[2.0, 20.0, 0.5]]}
    assert writer.samples == 3


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    with writing_answers(path, (), World()) as writer:
        writer.on_evaluated(evaluated(0, 3))
        assert not path.exists()
    assert len(path.read_text().splitlines()) == 3
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("old")

    def stopped_early() -> None:
        with writing_answers(path, (), World()) as writer:
            writer.on_evaluated(evaluated(0, 3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_early()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@frozen
class Pair(World):
    """The main process of two; the other one's share is known."""

    others: tuple[str, ...] = ()

    def gather(self, value: Any) -> list[Any]:
        return [value, list(self.others)]


def test_shares_are_joined_in_the_data_sets_order(tmp_path: Path) -> None:
    other = io.StringIO()
    AnswerWriter(other, ()).on_evaluated(evaluated(9, 3))
    world = Pair(0, 2, 0, tuple(other.getvalue().splitlines(keepends=True)))
    with writing_answers(tmp_path / "a.jsonl", (), world) as writer:
        writer.on_evaluated(evaluated(11, 2))
        writer.on_evaluated(evaluated(2, 1))
    indices = [json.loads(line)["index"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert indices == [2, 9, 10, 11, 11, 12]


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.1, 8),
    shear=st.floats(-1, 1),
    shift=st.tuples(st.floats(-99, 99), st.floats(-99, 99)),
)
def test_mapping_back_undoes_the_map(scale: float, shear: float, shift: tuple[float, float]) -> None:
    matrix = torch.tensor([[scale, shear, shift[0]], [0.0, -scale, shift[1]]], dtype=torch.float64)
    xy = torch.tensor([[0.0, 0.0], [10.0, 3.5]], dtype=torch.float64)
    there = xy @ matrix[:, :2].T + matrix[:, 2]
    torch.testing.assert_close(mapped_back(there, matrix), xy, rtol=1e-7, atol=1e-6)
