"""``carkp model-checker`` as it is typed."""

from __future__ import annotations

import io
import json
from pathlib import Path

from click.testing import CliRunner, Result
from npu_toys import toy_plugins, write_config
from rich.console import Console

from carkp_core.backend import CheckReport, NodeVerdict, Violation
from carkp_core.commands.model_checker import model_checker, print_report


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(model_checker, ["--config", str(config), *arguments], obj=toy_plugins())


def test_it_needs_no_checkpoint(tmp_path: Path) -> None:
    report = tmp_path / "check.json"
    result = run(write_config(tmp_path), "--json", str(report))
    assert result.exit_code == 0, result.output
    assert "ok: all 1 nodes run on toy-1, in 1 segment." in result.output
    payload = json.loads(report.read_text())
    assert (payload["march"], payload["ok"], payload["violations"]) == ("toy-1", True, [])


def test_march_overrides_the_configs(tmp_path: Path) -> None:
    assert "toy-2" in run(write_config(tmp_path), "--march", "toy-2").output


def test_findings_exit_1_and_are_written(tmp_path: Path) -> None:
    extra = "\nimport torch\ndeploy_model = dict(type=torch.nn.Sigmoid)\n"
    report = tmp_path / "check.json"
    result = run(write_config(tmp_path, extra=extra), "--json", str(report))
    assert result.exit_code == 1, result.output
    assert "no_tables" in result.output
    assert "not ok: 1 violation; 1 rejected of 1 nodes" in result.output
    (violation,) = json.loads(report.read_text())["violations"]
    assert set(violation) == {"rule", "node", "source", "seen", "allowed", "remedy"}
    assert violation["rule"] == "no_tables"


def test_verbose_lists_every_node(tmp_path: Path) -> None:
    output = run(write_config(tmp_path), "--verbose").output
    assert "nodes on toy-1" in output
    assert "conv2d" in output


REPORT = CheckReport(
    "bayes",
    (
        NodeVerdict("stem", "conv2d", "NPU", "net.stem (net.py:3)", 0),
        NodeVerdict("soft[max]", "opaque", "CPU", "net (net.py:9)", None),
        NodeVerdict("warp", "opaque", "rejected", "", None),
    ),
    (
        Violation("integer_form", "soft[max]", "net (net.py:9)", "softmax has none", "operators of the IR", "move it"),
        Violation("integer_form", "warp", "", "warp has none", "operators of the IR", "move it"),
    ),
)


def printed(report: CheckReport, *, verbose: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_report(report, console, verbose=verbose)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_violation_is_printed_in_full() -> None:
    text = printed(REPORT)
    assert "1. soft[max]  breaks integer_form" in text
    for label, words in (("where", "net (net.py:9)"), ("seen", "softmax has none"), ("do", "move it")):
        assert f"   {label:<8}{words}" in text
    assert "not ok: 2 violations; 1 left to the CPU, 1 rejected of 3 nodes; 1 segment on bayes." in text


def test_names_with_brackets_are_no_markup() -> None:
    assert "soft[max]" in printed(REPORT, verbose=True)
