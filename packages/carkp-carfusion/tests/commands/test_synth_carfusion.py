from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from carkp_carfusion.commands.synth_carfusion import synth_carfusion
from carkp_carfusion.data.raw import SPLITS
from carkp_carfusion.data.synth import SEQUENCES


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(synth_carfusion, [str(argument) for argument in arguments])


def test_it_draws_and_reports(tmp_path: Path) -> None:
    result = invoke(
        "--out", tmp_path / "raw", "--frames-train", 2, "--frames-test", 1, "--size", "320X180",
        "--difficulty", "easy", "--seed", 5, "--num-workers", 1, "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "points visible (1)" in result.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["frames_train"], report["frames_test"]) == (2, 1)
    assert report["cars"] > 0
    assert len(list((tmp_path / "raw").glob("*/*/images_jpg/*.jpg"))) == 3


@pytest.mark.parametrize("size", ["1280", "1280x", "axb", "12 80x720", "-1x5"])
def test_a_malformed_size_says_how_to_write_one(tmp_path: Path, size: str) -> None:
    result = invoke("--out", tmp_path / "raw", f"--size={size}")
    assert result.exit_code == 2
    assert "1280x720" in result.output
    assert not (tmp_path / "raw").exists()


def test_negative_counts_and_unknown_difficulties_are_usage_errors(tmp_path: Path) -> None:
    for option, value in (("--frames-train", "-1"), ("--difficulty", "esay"), ("--num-workers", "0")):
        result = invoke("--out", tmp_path / "raw", option, value)
        assert result.exit_code == 2
        assert option in result.output


def test_the_generator_and_the_reader_agree_on_the_splits() -> None:
    assert tuple(SEQUENCES) == tuple(SPLITS)
