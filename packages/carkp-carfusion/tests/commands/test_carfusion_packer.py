from __future__ import annotations

import json
from pathlib import Path

import pytest

from carkp_core.cli import run


def arguments(source: Path, target: Path, split: str) -> list[str]:
    command = ["carfusion-packer", "--src-data-dir", str(source), "--target-data-dir", str(target)]
    return [*command, "--split-name", split, "--pack-type", "lmdb", "--num-workers", "1"]


def test_packing_is_reported(cropped_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run([*arguments(cropped_data, tmp_path, "train"), "--json", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["written"], report["skipped"]) == (12, {})
    assert (tmp_path / "train_lmdb/data.mdb").is_file()
    assert "train: 12 samples" in capsys.readouterr().out


def test_a_wrong_split_lists_those_there_are(cropped_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(arguments(cropped_data, tmp_path, "val")) == 2
    error = capsys.readouterr().err
    assert "there is no split 'val'" in error
    assert "one of: test, train" in error
    assert "Traceback" not in error


def test_nothing_usable_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "simple_anno").mkdir()
    rows = [[1, 2, 1]] * 12
    (tmp_path / "simple_anno/keypoints_train.json").write_text(json.dumps({"a.jpg": rows, "b.jpg": rows[:3]}))
    assert run(arguments(tmp_path, tmp_path / "out", "train")) == 2
    captured = capsys.readouterr()
    assert "missing_image" in captured.out
    assert "malformed_annotation" in captured.out
    assert "no sample was packed" in captured.err
    assert not (tmp_path / "out/train_lmdb").exists()


def test_only_lmdb_is_a_pack_type(cropped_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = [value if value != "lmdb" else "mxrecord" for value in arguments(cropped_data, tmp_path, "train")]
    assert run(command) == 2
    assert "'mxrecord' is not 'lmdb'" in capsys.readouterr().err
