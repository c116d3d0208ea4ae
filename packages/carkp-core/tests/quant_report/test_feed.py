"""The samples of a report: spread over the data set, the same in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from report_toys import opened

from carkp_core.errors import DataError
from carkp_core.quant_report.feed import Feed, RandomInputs, Spread, stacked
from carkp_core.quant_report.source import open_source
from carkp_core.train.environment import plain_environment
from carkp_core.train.loaders import Replayed


class Numbers:
    skeleton = "twelve points"

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        return index


class Replaying(Numbers):
    def replay(self, index: int, epoch: int) -> tuple[int, int]:
        return index, epoch


def test_samples_are_spread_evenly_from_the_first_on() -> None:
    assert [Spread(Numbers(), 4)[i] for i in range(4)] == [0, 2, 5, 7]
    assert [Spread(Numbers(), 10)[i] for i in range(10)] == list(range(10))
    assert len(Spread(Numbers(), 99)) == 10


def test_else_it_is_the_data_set() -> None:
    spread = Spread(Numbers(), 3)
    assert spread.skeleton == "twelve points"
    assert not hasattr(spread, "replay")
    assert Replayed(Spread(Replaying(), 5), 0)[(0, 2)] == (4, 0)


def test_random_inputs_are_the_same_for_ever() -> None:
    one, two = RandomInputs([(3, 4), (2,)], 5, seed=1), RandomInputs([(3, 4), (2,)], 5, seed=1)
    first, second = stacked([one[3]])
    assert (first.shape, second.shape) == ((1, 3, 4), (1, 2))
    assert torch.equal(first[0], two[3][0])
    assert not torch.equal(one[0][0], one[1][0])
    assert float(first.abs().max()) <= 1.0


def batches(folder: Path, *opts: str, **options: Any) -> list[list[int]]:
    session = opened(folder, *opts)
    with plain_environment(session.context) as environment:
        feed = Feed(open_source(session), environment, options.get("samples", 99), options.get("batch_size"))
        skip = options.get("skip", 0)
        found = [batch["index"].tolist() for batch in feed.batches(skip)]
        assert len(feed) == len(found) + skip
    return found


def test_batches_of_a_config(folder: Path) -> None:
    assert batches(folder, samples=6, batch_size=4) == [[0, 4, 8, 12], [16, 20]]
    assert batches(folder, samples=6, batch_size=4, skip=1) == [[16, 20]]
    assert [len(batch) for batch in batches(folder)] == [8, 8, 8], "as the config says"
    assert [len(batch) for batch in batches(folder, "data_loader.batch_size=24")] == [16, 8], "but 16 at most"


def test_an_empty_data_set_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="too small"):
        batches(folder, "data_loader.dataset.count=0")
