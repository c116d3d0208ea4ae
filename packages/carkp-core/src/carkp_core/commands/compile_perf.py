"""``carkp compile-perf``: compile a network and estimate how fast it will run."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from carkp_core.backend import CompileResult
from carkp_core.cli_options import config_options, write_json
from carkp_core.programs import compile_session


@click.command("compile-perf")
@config_options
@click.option("--opt", type=click.Choice(["O0", "O1", "O2"]), default=None, help="Override compile_cfg's level.")
@click.option("--fast-perf", is_flag=True, help="Random weights and calibration: judge a network before training it.")
@click.pass_context
def compile_perf(
    ctx: click.Context,
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    opt: str | None,
    fast_perf: bool,
) -> None:
    """Compile the integer model and estimate its performance; exit with status 1 when the check has findings.

    Writes the program (.hbm), perf.json and perf.html to compile_cfg's folder. With findings no program is written,
    and the performance is that of the nodes the NPU runs.
    """
    from carkp_core.session import open_session

    session = open_session(config, opts, march, plugins=ctx.obj)
    if fast_perf and session.compile_options().hbm.exists():
        click.echo(
            "note: replacing the program there; compile-perf without --fast-perf makes a trained one again", err=True
        )
    result = compile_session(session, fast=fast_perf, opt=opt)
    print_result(result, Console())
    write_json(json_path, result.to_json())
    if not result.check.ok:
        ctx.exit(1)


def print_result(result: CompileResult, console: Console) -> None:
    """Print the estimate, what was written, and the findings if there are any."""
    performance = result.performance
    table = Table(title=f"estimated on {performance.march}", show_header=False, box=None)
    table.add_column(justify="left")
    table.add_column(justify="right")
    lower = performance.ddr_bytes_lower_bound
    rows = [
        ("latency of one frame", f"{performance.latency_ms:.3f} ms"),
        ("frames per second, one core saturated", f"{performance.fps:.1f}"),
        ("DDR traffic of a frame", f"{performance.ddr_bytes_per_frame:,} bytes"),
        (
            "  its lower bound",
            f"{lower:,} bytes" + (f" (x {performance.ddr_bytes_per_frame / lower:.2f})" if lower else ""),
        ),
        ("on-chip memory used at most", f"{performance.sram_peak_bytes:,} of {performance.sram_bytes:,} bytes"),
    ]
    live = performance.sram_live_bytes
    if live:
        overhead = f"(overhead {performance.sram_peak_bytes / live - 1:.2%})"
        rows.append(("  wanted at one time, its lower bound", f"{live:,} bytes {overhead}"))
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if result.hbm is not None:
        console.print(f"program: {escape(str(result.hbm))}", soft_wrap=True)
        console.print(f"sha256:  {result.sha256}", soft_wrap=True)
    for path in result.reports:
        console.print(f"report:  {escape(str(path))}", soft_wrap=True)
    if not result.check.ok:
        from carkp_core.commands.model_checker import print_report

        print_report(result.check, console)
        console.print("no program was written; the figures above are those of the nodes that the NPU runs")
