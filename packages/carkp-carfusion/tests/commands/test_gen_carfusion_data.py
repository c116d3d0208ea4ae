from __future__ import annotations

import json
from pathlib import Path

import pytest

from carkp_core.cli import run


def test_crops_are_reported(raw_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (raw_data / "train/car_a/images_jpg/1_0001.jpg").write_bytes(b"junk")
    arguments = ["gen-carfusion-data", "--src-data-path", str(raw_data), "--out-dir", str(tmp_path / "out")]
    assert run([*arguments, "--num-workers", "2", "--json", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["written"] == 6
    assert report["skipped"] == {"unreadable_image": 1}
    assert report["examples"] == {"unreadable_image": ["train/car_a/images_jpg/1_0001.jpg"]}
    assert {name: split["crops"] for name, split in report["splits"].items()} == {"train": 4, "test": 2}
    printed = capsys.readouterr().out
    assert "train: 4 crops from 3 frames" in printed
    assert "unreadable_image" in printed


def test_nothing_usable_is_an_error_after_the_report(
    raw_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for labels in raw_data.rglob("gt/*.txt"):
        labels.write_text("nonsense\n")
    arguments = ["gen-carfusion-data", "--src-data-path", str(raw_data), "--out-dir", str(tmp_path / "out")]
    assert run([*arguments, "--json", str(tmp_path / "r.json")]) == 2
    assert json.loads((tmp_path / "r.json").read_text())["skipped"] == {"empty_labels": 4, "malformed_line": 4}
    captured = capsys.readouterr()
    assert "malformed_line" in captured.out
    assert "no crop was written" in captured.err


def test_a_folder_without_splits_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for source in (tmp_path, tmp_path / "nowhere"):
        assert run(["gen-carfusion-data", "--src-data-path", str(source), "--out-dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "no split found" in error
    assert "does not exist" in error
    assert "Traceback" not in error
