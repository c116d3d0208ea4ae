"""``carkp align-bpu-validation`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from npu_toys import toy_graph, toy_plugins, write_config

from carkp_core.commands.align import align


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(align, ["--config", str(config), *arguments], obj=toy_plugins())


def test_it_compiles_first_and_says_so(tmp_path: Path) -> None:
    report = tmp_path / "result.json"
    result = run(write_config(tmp_path, toy_graph()), "--num-samples", "5", "--json", str(report))
    assert result.exit_code == 0, result.output
    assert "there is no program yet" in result.stderr
    assert "0 of 320 elements differ" in result.stdout
    payload = json.loads(report.read_text())
    assert set(payload) == {"differing_elements", "samples", "metrics"}
    assert payload["samples"] == 5
    assert set(payload["metrics"]) == {"int_infer", "int_infer_nv12", "hbm"}


def test_a_difference_exits_1(tmp_path: Path) -> None:
    result = run(write_config(tmp_path, toy_graph("toy-faulty")), "--march", "toy-faulty")
    assert result.exit_code == 1
    assert "640 of 640 elements differ" in result.stdout
