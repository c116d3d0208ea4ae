"""``carkp quant-report`` as it is typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from npu_toys import toy_plugins
from report_toys import train, write_config

from carkp_core.commands.quant_report import quant_report
from carkp_core.errors import CarkpError


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(quant_report, [*arguments, "--config", str(folder / "toy.py")], obj=toy_plugins())


def test_it_prints_a_table_and_writes_page_and_json(folder: Path) -> None:
    result = run(folder, "--json", str(folder / "out.json"))
    assert result.exit_code == 0, result.output
    words = result.stdout
    assert "toy, calibration: 5 layers on 24 samples" in words
    assert "found 1.0000 in float, 1.0000 quantized" in words
    assert "No layer hurts by itself" in words
    assert re.search(r"^ depthwise +\d\d\.\d +0 +0 +0 %", words, re.MULTILINE)
    made = folder / "models" / "quant-report" / "calibration"
    assert sorted(path.name for path in made.iterdir()) == ["journal.jsonl", "report.html", "report.json"]
    assert (made / "report.json").read_text() == (folder / "out.json").read_text()
    plain = json.loads((folder / "out.json").read_text())
    assert [layer["name"] for layer in plain["layers"]] == ["img", "stem", "depthwise", "project", "head"]
    assert plain["worst_layers"] == []


def test_what_hurts_and_what_to_do(tmp_path: Path) -> None:
    write_config(tmp_path)
    train(tmp_path, "float", "calibration", opts=("factor=50",))
    result = run(tmp_path, "--opts", "factor=50", "--samples", "8", "--out", str(tmp_path / "here"))
    assert result.exit_code == 0, result.output
    assert re.search(r"\d layers? hurts?\.", result.stdout)
    assert "depthwise: equalize: its channels share one step" in result.stdout
    assert 'dict(type="CrossLayerEqualization")' in result.stdout
    assert (tmp_path / "here" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage", "qat"), "the config has no stage 'qat'"),
        (("--layers", "none*"), "no layer's name fits the pattern"),
        (("--opts", "ckpt_dir=elsewhere"), "train --stage calibration"),
    ],
)
def test_bad_input_exits_2(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(folder, *arguments)
    assert isinstance(result.exception, CarkpError)
    assert result.exception.exit_status == 2
    assert message in str(result.exception)


def test_stopped_it_says_so_and_the_same_command_goes_on(folder: Path) -> None:
    (folder / "stop").touch()
    result = run(folder, "--batch-size", "4")
    assert result.exit_code == 130
    assert "stopped: 2 of 6 batches are kept: the same command goes on from there" in result.stderr
    assert not (folder / "models" / "quant-report" / "calibration" / "report.json").exists()
    result = run(folder, "--batch-size", "4")
    assert result.exit_code == 0, result.output
    assert "going on after 2 of 6 batches" in result.stderr


def test_help_imports_no_torch() -> None:
    code = "import sys, carkp_core.commands.quant_report; print('torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert made.stdout.strip() == "False"
