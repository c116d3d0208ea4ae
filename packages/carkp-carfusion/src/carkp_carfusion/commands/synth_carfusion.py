"""``carkp synth-carfusion``: draw a data set in the raw CarFusion layout."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from carkp_carfusion.data.synth.difficulty import DIFFICULTIES
from carkp_carfusion.data.synth.generate import SynthReport, SynthSpec, generate
from carkp_core.cli_options import json_option, write_json


class SizeType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``WxH`` in pixels."""

    name = "WxH"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """``"1280x720"`` -> ``(1280, 720)``."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", value.strip())
        if match is None:
            self.fail(f"{value!r} is not a size; write width x height in pixels, e.g. 1280x720", param, ctx)
        return int(match[1]), int(match[2])


@click.command("synth-carfusion")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The raw data set to write.")
@click.option("--frames-train", type=click.IntRange(min=0), default=160, show_default=True)
@click.option("--frames-test", type=click.IntRange(min=0), default=40, show_default=True)
@click.option("--size", type=SizeType(), default="1280x720", show_default=True, help="Size of a frame.")
@click.option("--difficulty", type=click.Choice(list(DIFFICULTIES)), default="normal", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--boxes", is_flag=True, help="Write bb/ files (x1,y1,x2,y2,car_id) as well.")
@click.option("--num-workers", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default="one per core")
@json_option
def synth_carfusion(out: Path, num_workers: int, json_path: Path | None, **spec: object) -> None:
    """Draw streets with cars, and all 14 points of every car, in the raw CarFusion layout.

    The same seed gives the same bytes with any number of workers. Run it again after an interruption and it goes on
    where it stopped; ask for more frames and it adds them.
    """
    report = generate(out, SynthSpec(**spec), num_workers)  # type: ignore[arg-type]
    show_report(report, out, Console())
    write_json(json_path, {"out": out, **report.to_json()})


def show_report(report: SynthReport, out: Path, console: Console) -> None:
    """Print what the data set holds."""
    table = Table(title=f"generated frames in {out}", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    rows = (
        ("frames, train", report.frames_train),
        ("frames, test", report.frames_test),
        ("of these from an earlier run", report.kept),
        ("cars", report.cars),
        ("points visible (1)", report.visible),
        ("points occluded by something else (2)", report.occluded),
        ("points occluded by their own car (3)", report.self_occluded),
        ("points outside the frame", report.outside),
    )
    for what, count in rows:
        table.add_row(what, str(count))
    console.print(table)
