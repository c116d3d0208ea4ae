"""``carkp compile-perf`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from npu_toys import toy_graph, toy_plugins, write_config

from carkp_core.commands.compile_perf import compile_perf


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(compile_perf, ["--config", str(config), *arguments], obj=toy_plugins())


def test_the_program_and_its_figures(tmp_path: Path) -> None:
    report = tmp_path / "result.json"
    result = run(write_config(tmp_path, toy_graph()), "--json", str(report))
    assert result.exit_code == 0, result.output
    assert "0.500 ms" in result.output
    assert "x 2.00" in result.output
    payload = json.loads(report.read_text())
    assert payload["hbm"] == str(tmp_path / "out" / "model.hbm")
    keys = ("march", "sram_bytes", "latency_ms", "fps", "ddr_bytes_per_frame", "ddr_bytes_lower_bound")
    assert [payload[key] for key in keys] == ["toy-1", 1024, 0.5, 2000.0, 3000, 1500]
    assert len(payload["sha256"]) == 64


def test_findings_leave_no_program_and_exit_1(tmp_path: Path) -> None:
    report = tmp_path / "result.json"
    result = run(write_config(tmp_path, toy_graph(table=True)), "--json", str(report))
    assert result.exit_code == 1
    assert "no_tables" in result.output
    assert "no program was written" in result.output
    payload = json.loads(report.read_text())
    assert (payload["hbm"], payload["sha256"], payload["fps"]) == (None, None, 2000.0)
    assert not (tmp_path / "out" / "model.hbm").exists()


def test_fast_perf_and_level(tmp_path: Path) -> None:
    result = run(write_config(tmp_path), "--fast-perf", "--opt", "O1")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "model.hbm").exists()
    assert run(tmp_path / "toy.py", "--opt", "O9").exit_code == 2
