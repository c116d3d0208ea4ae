"""``carkp compare``: two forms of one model, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from carkp_core.cli_options import config_options, write_json

if TYPE_CHECKING:
    from carkp_core.compare.comparison import Comparison
    from carkp_core.compare.floats import Error, FloatFindings
    from carkp_core.compare.integers import Divergence, IntegerFindings

#: Layers with differing elements that are printed; the JSON file and the page have all.
SHOWN_LAYERS = 12


@click.command("compare")
@click.argument("sides", nargs=2, metavar="A B")
@config_options
@click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="An image, or a folder of images. May be repeated. By default the first validation samples.",
)
@click.option(
    "--num-samples",
    type=click.IntRange(min=1),
    default=None,
    help="Use at most this many images; by default all of --images, or 8 validation samples.",
)
@click.option(
    "--html",
    "html_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the result as a page with a chart to this file.",
)
@click.pass_context
def compare(
    ctx: click.Context,
    sides: tuple[str, str],
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    images: tuple[Path, ...],
    num_samples: int | None,
    html_path: Path | None,
) -> None:
    """Walk two forms A and B of a model layer by layer: float, calibration, qat, int_infer, hbm, or a QDQ .onnx file.

    Between integers: the first element that differs, and how many differ in each layer. Beside float: the error that
    each layer adds and the one it inherits. A program that is missing or out of date is compiled first. Exits with
    status 1 when two integer models differ; an ONNX file is not one.
    """
    from carkp_core.compare.comparison import compare_session
    from carkp_core.session import open_session

    say = Console(stderr=True).print
    session = open_session(config, opts, march, plugins=ctx.obj)
    found = compare_session(
        session, sides, images, num_samples, lambda line: say(line, markup=False, highlight=False, soft_wrap=True)
    )
    console = Console()
    print_comparison(found, console)
    write_json(json_path, found.to_json())
    if html_path is not None:
        from carkp_core.compare.page import write_page

        write_page(found, html_path, session.context.task)
        console.print(f"page: {html_path}", markup=False, highlight=False, soft_wrap=True)
    if not found.ok:
        ctx.exit(1)


def print_comparison(found: Comparison, console: Console) -> None:
    """Print what two sides have in common and where they part."""
    from carkp_core.compare.integers import IntegerFindings

    findings = found.findings
    layers = sum(layer.op not in ("input", "constant") for layer in findings.layers)
    plural = "" if found.images == 1 else "s"
    _say(console, f"{found.a} and {found.b}: {layers} layers, {found.images} image{plural}")
    for note in found.notes:
        _say(console, f"note: {note}")
    for side, names in ((found.a, found.only_a), (found.b, found.only_b)):
        if names:
            _say(console, f"only in {side}: {', '.join(names)}")
    if isinstance(findings, IntegerFindings):
        _print_integers(found, findings, console)
    else:
        _print_floats(findings, console)


def _print_integers(found: Comparison, findings: IntegerFindings, console: Console) -> None:
    differing = [layer for layer in findings.layers if layer.differing]
    colour = "green" if not differing else "red" if found.exact else "yellow"
    console.print(
        f"[{colour}]{findings.differing:,}[/] of {findings.elements:,} elements differ",
        highlight=False,
        soft_wrap=True,
    )
    if findings.first is None:
        return
    _print_divergence(findings.first, found, console)
    table = _table("layers that differ, in execution order", "differing", "of", "largest")
    for layer in differing[:SHOWN_LAYERS]:
        table.add_row(Text(layer.name), f"{layer.differing:,}", f"{layer.elements:,}", str(layer.max_difference))
    console.print(table)
    if len(differing) > SHOWN_LAYERS:
        _say(console, f"and {len(differing) - SHOWN_LAYERS} more layers (--json and --html have all)")


def _print_divergence(first: Divergence, found: Comparison, console: Console) -> None:
    index = ", ".join(map(str, first.index))
    _say(console, "")
    _say(console, f"first difference: {first.layer} ({first.op})")
    if first.source:
        _say(console, f"  at {first.source}")
    _say(console, f"  element [{index}] of {first.image}")
    table = Table("", box=None, padding=(0, 2))
    for side in (found.a, found.b):
        table.add_column(Text(side), justify="right")
    for title, a, b in first.rows():
        table.add_row(Text(title), a, b)
    console.print(table)
    _say(console, f"  {first.explanation(found.a, found.b)}")


def _print_floats(findings: FloatFindings, console: Console) -> None:
    table = _table("signal to noise in dB, and cosine", "own", "cosine", "inherited", "cosine", "total")
    worst = findings.worst
    for layer in findings.layers:
        own, inherited = _cells(layer.own), _cells(layer.inherited)
        style = "bold yellow" if layer is worst else None
        table.add_row(Text(layer.name), *own, *inherited, layer.total.decibels, style=style)
    console.print(table)
    _say(
        console,
        "own: the layer in integers on the float network's tensors; inherited: what earlier errors become there",
    )
    if worst is not None and worst.own is not None:
        _say(console, f"most error is added by {worst.name}: {worst.own.decibels} dB")


def _table(title: str, *numbers: str) -> Table:
    """Layers and their numbers; long names are folded, since their ends tell them apart."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    table.add_column("layer", overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(error: Error | None) -> tuple[str, str]:
    return ("", "") if error is None else (error.decibels, f"{error.cosine:.5f}")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
