"""``carkp quickstart``: every step of the workflow on generated data, ending with a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from carkp_core.cli_options import json_option, write_json
from carkp_core.errors import DataError

if TYPE_CHECKING:
    from carkp_carfusion.quickstart import QuickstartResult


@click.command("quickstart")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="A folder for everything made."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the data and of training.")
@click.option("--num-workers", type=click.IntRange(min=1), help="Processes that draw, crop and pack. [all cores]")
@json_option
@click.pass_context
def quickstart(ctx: click.Context, out: Path, seed: int, num_workers: int | None, json_path: Path | None) -> None:
    """Run the whole workflow on generated data, in a few minutes.

    Draws cars on the generator's easy setting, crops and packs them, trains a small network, calibrates and converts
    it, checks and compiles it, validates the compiled program, exports ONNX and draws results.
    """
    # Waiting OpenMP threads spin by default, which starves everything else on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from carkp_carfusion.quickstart import run_quickstart

    console = Console(soft_wrap=True, highlight=False)
    console.print("A small network on easy, generated data: to see every step work, not for results to compare.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError("the folder cannot be made", where=f"--out {out}", seen=error.strerror) from error
    workers = num_workers or len(os.sched_getaffinity(0))
    result = run_quickstart(out, plugins=ctx.obj, seed=seed, num_workers=workers, say=console.print)
    print_result(result, console)
    write_json(json_path, result.to_json())
    if result.differing_elements:
        ctx.exit(1)


def print_result(result: QuickstartResult, console: Console) -> None:
    """The metrics of every stage, the estimate, and where everything is."""
    table = Table("stage", title="on the generated test split")
    for column in ("PCK@0.1", "mean distance (px)"):
        table.add_column(column, justify="right")
    labels = {"hbm": "hbm (compiled program, NV12 input)"}
    for stage, metrics in result.stages.items():
        table.add_row(labels.get(stage, stage), f"{metrics['PCK@0.1']:.4f}", f"{metrics['mean_dist']:.2f}")
    console.print(table)
    console.print(f"elements that differ between integer model and program: {result.differing_elements}")
    console.print(f"estimated on one core: {result.latency_ms:.3f} ms a frame alone, {result.fps:.0f} FPS saturated")
    for name, path in result.files.items():
        console.print(f"{name + ':':<24}{path}", markup=False)
    console.print(f"done in {result.seconds:.0f} s")
