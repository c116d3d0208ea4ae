"""``carkp gen-carfusion-data``: crop the cars out of raw frames."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console

from carkp_carfusion.data.crop import CropReport, crop_dataset
from carkp_core.cli_options import json_option, write_json
from carkp_core.errors import DataError


@click.command("gen-carfusion-data")
@click.option("--src-data-path", type=click.Path(path_type=Path), required=True, help="The raw data set.")
@click.option("--out-dir", type=click.Path(path_type=Path), required=True, help="Where the crops go.")
@click.option("--num-workers", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default="one per core")
@json_option
def gen_carfusion_data(src_data_path: Path, out_dir: Path, num_workers: int, json_path: Path | None) -> None:
    """Crop every labelled car of a raw CarFusion data set.

    Run it again after an interruption and it goes on where it stopped. Whatever cannot be used is counted and named
    in the report; it is an error only when nothing at all could be used.
    """
    report = crop_dataset(src_data_path, out_dir, num_workers)
    show_report(report, Console())
    write_json(json_path, report.to_json())
    if not report.written:
        raise DataError(
            "no crop was written",
            where=str(src_data_path),
            seen=", ".join(f"{count} x {reason}" for reason, count in report.skipped.counts().items()),
            remedy="see the report above; `carkp view` draws raw data as it is read",
        )


def show_report(report: CropReport, console: Console) -> None:
    """Print what was written and what was skipped."""
    for name, split in report.splits.items():
        again = f", {split.reused} of them done earlier" if split.reused else ""
        console.print(f"{name}: {split.crops} crops from {split.frames} frames{again} -> {split.annotations}")
    if report.skipped:
        console.print(report.skipped.table())
