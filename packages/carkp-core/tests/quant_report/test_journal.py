"""A journal gives back what was measured, to the last bit, and nothing that is not of the same run."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from report_toys import Model

from carkp_core.errors import DataError
from carkp_core.quant.prepare import prepare
from carkp_core.quant.sensitivity.measurement import BatchSums, measure
from carkp_core.quant.sensitivity.mixed import MixedNetwork
from carkp_core.quant_report.journal import Journal, batch_of, plain_of


@pytest.fixture(scope="module")
def batch() -> BatchSums:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = prepare(Model().network.eval(), {"img": x[:1]}).eval()
    network.start_observing()
    network(x)
    network.finish_observing()

    def score(outputs: torch.Tensor) -> list[dict[str, np.ndarray]]:
        return [{"sum": outputs.double().sum().numpy(), "count": np.asarray([len(outputs), 0])}]

    return measure(MixedNetwork(network), [x], score)


def same(a: BatchSums, b: BatchSums) -> bool:
    return json.dumps(plain_of(a)) == json.dumps(plain_of(b))


def test_a_batch_comes_back_to_the_last_bit(batch: BatchSums) -> None:
    again = batch_of(json.loads(json.dumps(plain_of(batch))))
    assert again.signal == batch.signal
    assert list(again.layers) == list(batch.layers)
    for name, sums in batch.layers.items():
        other = again.layers[name]
        for field in attrs.fields(type(sums)):
            one, two = getattr(sums, field.name), getattr(other, field.name)
            if isinstance(one, np.ndarray):
                assert one.dtype == two.dtype
                np.testing.assert_array_equal(one, two)
            elif isinstance(one, (int, float)):
                assert one == two
        assert other.only.noise == sums.only.noise
        for key, state in sums.only.states[0].items():
            np.testing.assert_array_equal(other.only.states[0][key], state)
            assert other.only.states[0][key].shape == state.shape
        np.testing.assert_array_equal(other.histogram.counts, sums.histogram.counts)
        assert (other.histogram.limit, other.histogram.zeros) == (sums.histogram.limit, sums.histogram.zeros)


def test_batches_are_kept_in_order(tmp_path: Path, batch: BatchSums) -> None:
    path, key = tmp_path / "new" / "journal.jsonl", {"model": "a"}
    journal = Journal(path, key)
    assert journal.batches == []
    journal.add(batch)
    journal.add(attrs.evolve(batch, samples=3))
    opened = Journal(path, key)
    assert [kept.samples for kept in opened.batches] == [4, 3]
    assert same(opened.batches[0], batch)
    assert opened.discarded == ""


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, batch: BatchSums) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, {})
    journal.add(batch)
    journal.add(batch)
    path.write_text(path.read_text()[:-100])
    opened = Journal(path, {})
    assert len(opened.batches) == 1
    opened.add(batch)
    assert len(Journal(path, {}).batches) == 2


def test_another_key_or_fresh_begins_anew(tmp_path: Path, batch: BatchSums) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, {"model": "a"}).add(batch)
    other = Journal(path, {"model": "b"})
    assert other.batches == []
    assert "another model" in other.discarded
    other.add(batch)
    fresh = Journal(path, {"model": "b"}, fresh=True)
    assert (fresh.batches, fresh.discarded) == ([], "")
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("text", ["", "no json\n", "[]\n", '{"format":0}\n'])
def test_something_else_in_its_place_is_not_gone_on_with(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    journal = Journal(path, {})
    assert journal.batches == []
    assert journal.discarded


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written") as error:
        Journal(tmp_path / "file" / "journal.jsonl", {})
    assert "--out" in str(error.value)
