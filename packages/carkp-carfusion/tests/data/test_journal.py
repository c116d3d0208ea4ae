from __future__ import annotations

from pathlib import Path

from carkp_carfusion.data.journal import CropRecord, FrameRecord, Journal, crops_intact, source_state
from carkp_carfusion.data.tally import Tally


def record(key: str) -> FrameRecord:
    crop = CropRecord(f"{key}_car0.jpg", 3, [[1.5, 2.0, 1]])
    return FrameRecord(key, ((10, 20), (-1, -1)), (crop,), Tally.of([("too_small", key)]))


def test_records_survive_the_file(tmp_path: Path):
    journal = Journal(tmp_path / "j.jsonl", {"rules": 1})
    journal.start([record("a")])
    journal.append([record("b"), record("c")])
    assert journal.read() == {key: record(key) for key in "abc"}


def test_a_line_cut_short_is_ignored(tmp_path: Path):
    journal = Journal(tmp_path / "j.jsonl", {})
    journal.start([record("a"), record("b")])
    text = journal.path.read_text()
    journal.path.write_text(text[:-20])
    assert list(journal.read()) == ["a"]


def test_other_rules_start_over(tmp_path: Path):
    Journal(tmp_path / "j.jsonl", {"rules": 1}).start([record("a")])
    assert Journal(tmp_path / "j.jsonl", {"rules": 2}).read() == {}
    assert Journal(tmp_path / "none.jsonl", {}).read() == {}


def test_crops_are_intact_by_size(tmp_path: Path):
    assert not crops_intact(record("a"), tmp_path)
    (tmp_path / "a_car0.jpg").write_bytes(b"123")
    assert crops_intact(record("a"), tmp_path)
    (tmp_path / "a_car0.jpg").write_bytes(b"12")
    assert not crops_intact(record("a"), tmp_path)


def test_a_changed_source_is_noticed(tmp_path: Path):
    path = tmp_path / "gt.txt"
    path.write_text("1")
    before = source_state((path, None))
    assert before[1] == (-1, -1)
    path.write_text("12")
    assert source_state((path, None)) != before
    path.unlink()
    assert source_state((path,)) == ((-1, -1),)
