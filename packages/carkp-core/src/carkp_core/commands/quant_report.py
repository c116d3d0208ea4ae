"""``carkp quant-report``: which layer quantization hurts, and what to do about it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from carkp_core.cli_options import config_options, write_json

if TYPE_CHECKING:
    from carkp_core.quant.sensitivity.findings import LayerFindings, Sensitivity
    from carkp_core.quant_report.report import QuantReport

#: Layers that are printed; the JSON file and the page have all.
SHOWN_LAYERS = 10


@click.command("quant-report")
@click.option(
    "--stage",
    type=click.Choice(("calibration", "qat", "float")),
    default=None,
    help="Whose network; by default qat's if it was trained from the present calibration, else calibration's.",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=256, show_default=True, help="Validation samples to use."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=None, help="Samples at once; 16 at most by default.")
@click.option(
    "--layers",
    multiple=True,
    metavar="PATTERN",
    help="Only layers whose names fit: '*.depthwise.*'. May be repeated.",
)
@click.option(
    "--out",
    "out_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder of page, JSON file and journal. [<ckpt_dir>/quant-report/STAGE]",
)
@click.option(
    "--resume/--fresh",
    default=True,
    help="Go on from what an earlier, stopped run has measured (the default), or measure everything again.",
)
@config_options
@click.pass_context
def quant_report(
    ctx: click.Context,
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    stage: str | None,
    samples: int,
    batch_size: int | None,
    layers: tuple[str, ...],
    out_dir: Path | None,
    resume: bool,
) -> None:
    """Measure what quantization costs, layer by layer: which layer hurts, and what to do.

    Each layer is quantized alone and left in float alone, on validation samples. Writes a page (report.html) and
    report.json to --out. It may be stopped at any time: the same command goes on.
    """
    from carkp_core.quant_report.page import write_page
    from carkp_core.quant_report.report import ReportOptions, report_dir, report_session
    from carkp_core.session import open_session
    from carkp_core.train.interrupts import StoppedError

    session = open_session(config, opts, march, plugins=ctx.obj)
    options = ReportOptions(stage, samples, batch_size, layers, fresh=not resume)
    try:
        report = report_session(session, options, out_dir, lambda line: click.echo(line, err=True))
    except StoppedError as stop:
        click.echo(f"stopped: {stop.message}" if stop.message else "stopped", err=True)
        ctx.exit(stop.exit_status)
    folder = out_dir or report_dir(session, report.stage)
    write_json(folder / "report.json", report.to_json())
    write_json(json_path, report.to_json())
    write_page(report, folder / "report.html")
    console = Console()
    print_report(report, console)
    for name in ("report.html", "report.json"):
        _say(console, f"wrote {folder / name}")


def print_report(report: QuantReport, console: Console) -> None:
    """Print what the whole network loses, and the worst layers."""
    from carkp_core.quant_report.page import metric_unit

    found = report.sensitivity
    _say(console, f"{report.task}, {report.stage}: {len(found.layers)} layers on {found.samples} samples")
    for note in report.notes:
        _say(console, f"note: {note}")
    _say(console, summary(found))
    ranked = found.ranked()
    console.print(_table(found, ranked[:SHOWN_LAYERS]))
    _say(console, "alone dB: signal to noise of the outputs when only this layer is quantized")
    if found.metric:
        _say(console, f"lost, gained: {metric_unit(found)} when only it is quantized, when only it is in float")
    if len(ranked) > SHOWN_LAYERS:
        _say(console, f"and {len(ranked) - SHOWN_LAYERS} more layers (the page and the JSON file have all)")
    for layer in ranked:
        for advice in layer.advice:
            cost = "" if advice.latency_ms is None else f" (about {advice.latency_ms:+.3f} ms a frame)"
            _say(console, f"{layer.name}: {advice.action}: {advice.text}{cost}")
            if advice.config:
                _say(console, f"  {advice.config}")


def summary(found: Sensitivity) -> str:
    """The whole network in a line or two."""
    parts = [f"signal to noise of the outputs {decibels(found.network_db)} dB"]
    if found.metric:
        before, after = found.metrics_float[found.metric], found.metrics_quantized[found.metric]
        parts.insert(0, f"{found.metric} {before:.4f} in float, {after:.4f} quantized")
    hurting = sum(layer.hurts for layer in found.layers)
    verdict = "1 layer hurts" if hurting == 1 else f"{hurting} layers hurt" if hurting else "No layer hurts by itself"
    spread = ": the loss is spread over all of them, so train with --stage qat" if found.spread else ""
    return f"{'; '.join(parts)}. {verdict}{spread}."


def _table(found: Sensitivity, layers: list[LayerFindings]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("worst first", overflow="fold", min_width=16)
    for name in ("alone dB", *(("lost", "gained") if found.metric else ()), "clipped", "do"):
        table.add_column(name, justify="left" if name == "do" else "right", no_wrap=True)
    for layer in layers:
        cells = [decibels(layer.network_alone_db)]
        if found.metric:
            cells += [_change(value, found.in_points) for value in (layer.loss_alone, layer.gain_without)]
        cells += [f"{100 * layer.clipping:.2g} %", ", ".join(advice.action for advice in layer.advice)]
        table.add_row(Text(layer.name), *cells, style="bold yellow" if layer.hurts else None)
    return table


def _change(value: float, in_points: bool) -> str:
    """A change of a metric, of a share in hundredths, without a minus in front of nothing."""
    if not in_points:
        return f"{value:+.3g}" if value else "0"
    return f"{100 * value:+.2f}" if abs(value) >= 5e-5 else "0"


def decibels(value: float) -> str:
    """A ratio for people."""
    return "exact" if value == math.inf else f"{value:.1f}"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
