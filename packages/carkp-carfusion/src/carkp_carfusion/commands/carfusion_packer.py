"""``carkp carfusion-packer``: pack crops into an LMDB data set."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console

from carkp_carfusion.data.pack import PackReport, pack_split
from carkp_core.cli_options import json_option, write_json
from carkp_core.errors import DataError


@click.command("carfusion-packer")
@click.option("--src-data-dir", type=click.Path(path_type=Path), required=True, help="The cropped data set.")
@click.option("--target-data-dir", type=click.Path(path_type=Path), required=True, help="Gets <split>_lmdb.")
@click.option("--split-name", required=True, help="train or test; any split with simple_anno/keypoints_<split>.json.")
@click.option("--pack-type", type=click.Choice(["lmdb"]), default="lmdb", show_default=True)
@click.option("--num-workers", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default="one per core")
@json_option
def carfusion_packer(
    src_data_dir: Path,
    target_data_dir: Path,
    split_name: str,
    pack_type: str,
    num_workers: int,
    json_path: Path | None,
) -> None:
    """Pack one split of a cropped data set into TARGET/<split>_lmdb.

    The finished data set replaces an earlier one in one step. Crops that are missing or don't decode are counted and
    named; it is an error only when nothing at all could be packed.
    """
    assert pack_type == "lmdb"
    report = pack_split(src_data_dir, target_data_dir, split_name, num_workers)
    show_report(report, Console())
    write_json(json_path, report.to_json())
    if not report.written:
        raise DataError(
            "no sample was packed",
            where=str(src_data_dir),
            seen=", ".join(f"{count} x {reason}" for reason, count in report.skipped.counts().items())
            or "a split without annotations",
            remedy="run `carkp gen-carfusion-data` again and read its report",
        )


def show_report(report: PackReport, console: Console) -> None:
    """Print what was packed and what was skipped."""
    if report.written:
        console.print(f"{report.split}: {report.written} samples, {report.file_bytes / 1e6:.1f} MB -> {report.path}")
    if report.skipped:
        console.print(report.skipped.table())
