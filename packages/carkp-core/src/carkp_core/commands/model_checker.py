"""``carkp model-checker``: does an NPU run this network? Asked before any training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from carkp_core.backend import CheckReport
from carkp_core.cli_options import config_options, write_json
from carkp_core.plugins import PluginManager

STYLES = {"NPU": "green", "CPU": "yellow", "rejected": "red"}


@click.command("model-checker")
@config_options
@click.option("--verbose", "-v", is_flag=True, help="Print every node's verdict.")
@click.pass_context
def model_checker(
    ctx: click.Context, config: str, march: str | None, opts: tuple[str, ...], json_path: Path | None, verbose: bool
) -> None:
    """Check that an NPU runs a network; exit with status 1 when a node is left to the CPU or rejected.

    The network is quantized with random weights, so no checkpoint is needed.
    """
    report = check_config(config, opts, march, ctx.obj)
    print_report(report, Console(), verbose=verbose)
    write_json(json_path, report.to_json())
    if not report.ok:
        ctx.exit(1)


def check_config(
    config: str, opts: tuple[str, ...] = (), march: str | None = None, plugins: PluginManager | None = None
) -> CheckReport:
    """Open a config, quantize its deployed network with random weights and check it for the march.

    Raises
    ------
    ConfigError, BackendError, QuantizationError
        When the config is wrong, no package offers the march, or the network cannot be traced.
    """
    from carkp_core.session import open_session

    session = open_session(config, opts, march, plugins=plugins)
    backend = session.context.backend()
    return backend.check(session.fast_graph(), session.context.march)


def print_report(report: CheckReport, console: Console, *, verbose: bool = False) -> None:
    """Print a summary for each operator (or, verbose, each node) and every violation in full."""
    console.print(_nodes(report) if verbose else _summary(report))
    for number, violation in enumerate(report.violations, 1):
        console.print(f"\n[bold]{number}. {escape(violation.node)}[/]  breaks [bold]{escape(violation.rule)}[/]")
        lines = (
            ("where", violation.source),
            ("seen", violation.seen),
            ("allowed", violation.allowed),
            ("do", violation.remedy),
        )
        for label, text in lines:
            if text:
                console.print(Text(f"   {label:<8}").append(text), soft_wrap=True)
    console.print(f"\n{_conclusion(report)}", soft_wrap=True)


def _summary(report: CheckReport) -> Table:
    counts: dict[str, Counter[str]] = {}
    for node in report.nodes:
        counts.setdefault(node.op, Counter())[node.verdict] += 1
    verdicts = [name for name in STYLES if any(count[name] for count in counts.values())]
    table = Table("operator", "nodes", *verdicts, title=f"operators on {report.march}")
    for column in table.columns[1:]:
        column.justify = "right"
    for op, count in sorted(counts.items(), key=lambda item: -item[1].total()):
        cells = (f"[{STYLES[name]}]{count[name]}[/]" if count[name] else "" for name in verdicts)
        table.add_row(op, str(count.total()), *cells)
    return table


def _nodes(report: CheckReport) -> Table:
    table = Table("node", "operator", "verdict", "segment", "source", title=f"nodes on {report.march}")
    for node in report.nodes:
        segment = "" if node.segment is None else str(node.segment)
        verdict = f"[{STYLES[node.verdict]}]{node.verdict}[/]"
        table.add_row(escape(node.node), node.op, verdict, segment, escape(node.source))
    return table


def _conclusion(report: CheckReport) -> str:
    if report.ok:
        return f"[green]ok[/]: all {len(report.nodes)} nodes run on {report.march}, in {_segments(report)}."
    counts = Counter(node.verdict for node in report.nodes)
    left = [f"{counts['CPU']} left to the CPU"] * bool(counts["CPU"])
    left += [f"{counts['rejected']} rejected"] * bool(counts["rejected"])
    of_nodes = f" of {len(report.nodes)} nodes" if left else ""
    findings = f"{len(report.violations)} violation{'s' * (len(report.violations) != 1)}"
    return f"[red]not ok[/]: {findings}; {', '.join(left)}{of_nodes}; {_segments(report)} on {report.march}."


def _segments(report: CheckReport) -> str:
    return f"{report.segments} segment{'s' * (report.segments != 1)}"
