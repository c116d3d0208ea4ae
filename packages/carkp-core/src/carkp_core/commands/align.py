"""``carkp align-bpu-validation``: the compiled program against the integer model, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from carkp_core.cli_options import config_options, threads_option, write_json

if TYPE_CHECKING:
    from carkp_core.alignment import Alignment


@click.command("align-bpu-validation")
@config_options
@click.option("--num-samples", type=click.IntRange(min=1), default=None, help="Use this many samples instead of all.")
@threads_option
@click.pass_context
def align(
    ctx: click.Context,
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    num_samples: int | None,
    threads: int | None,
) -> None:
    """Validate the compiled program as the board would run it; exit with status 1 when it differs anywhere.

    Images go through NV12 as the camera delivers them. A program that is missing or out of date is compiled first.
    """
    from carkp_core.alignment import align_validation
    from carkp_core.session import open_session

    say = Console(stderr=True).print
    session = open_session(config, opts, march, threads=threads, plugins=ctx.obj)
    found = align_validation(
        session, num_samples, lambda line: say(line, markup=False, highlight=False, soft_wrap=True)
    )
    print_alignment(found, Console())
    write_json(json_path, found.to_json())
    if not found.ok:
        ctx.exit(1)


#: What each way of the table is, for people.
LABELS = {
    "int_infer": "int_infer, 4:4:4",
    "int_infer_nv12": "int_infer, NV12",
    "hbm": ".hbm, NV12",
}


def print_alignment(found: Alignment, console: Console) -> None:
    """Print the metrics of the three ways and the count of differing elements."""
    names = list(dict.fromkeys(name for values in found.metrics.values() for name in values))
    table = Table("", *names, title=f"{found.samples} samples")
    for column in table.columns[1:]:
        column.justify = "right"
    for way, values in found.metrics.items():
        cells = (f"{values[name]:.4f}" if name in values else "" for name in names)
        table.add_row(LABELS.get(way, way), *cells)
    console.print(table)
    colour = "green" if found.ok else "red"
    console.print(f"[{colour}]{found.differing_elements:,}[/] of {found.elements:,} elements differ", highlight=False)
