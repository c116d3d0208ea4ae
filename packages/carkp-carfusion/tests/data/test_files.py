from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from carkp_carfusion.data.files import make_folder, only_writer, write_bytes
from carkp_core.errors import DataError


def test_a_write_leaves_the_file_and_nothing_else(tmp_path: Path):
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_what_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(DataError, match="cannot be written"):
        write_bytes(tmp_path / "no folder" / "a", b"")


def test_a_second_process_is_turned_away(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from carkp_carfusion.data.files import only_writer\n"
        "with only_writer(Path(sys.argv[1])): pass"
    )
    with only_writer(tmp_path / "out"):
        run = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True, check=False
        )
    assert run.returncode == 1
    assert "another process is writing" in run.stderr
    with only_writer(tmp_path / "out"):
        pass
