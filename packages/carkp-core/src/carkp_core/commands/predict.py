"""``carkp predict``: evaluate a stage's model and say where it errs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from carkp_core.cli_options import PicturePath, config_options, threads_option, write_json
from carkp_core.session import open_session
from carkp_core.stages import STAGES

if TYPE_CHECKING:
    from carkp_core.session import Session
    from carkp_core.train.predictor import Prediction


def predict_stage(session: Session, output: Path | None = None, worst: Path | None = None) -> Prediction:
    """Evaluate the session's stage.

    Parameters
    ----------
    output:
        Where to write every sample's keypoints, one JSON object a line.
    worst:
        Where to draw the samples with the largest errors; by default ``<ckpt_dir>/<stage>-worst.png``, if a metric
        can draw them.
    """
    from carkp_core.train.seeding import seed_everything

    seed_everything(session.context.seed)
    predictor = session.predictor(session.context.stage)
    if worst is None and any(hasattr(metric, "draw_worst") for metric in predictor.metrics):
        worst = session.context.ckpt_dir / f"{session.context.stage}-worst.png"
    prediction: Prediction = predictor.predict(answers=output, worst=worst)
    return prediction


@click.command()
@click.option("--stage", type=click.Choice(STAGES), required=True, help="Whose best checkpoint to evaluate.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every sample's keypoints to this file: one JSON object a line, in pixels of the original crop.",
)
@click.option(
    "--worst",
    type=PicturePath(),
    help="Draw the samples with the largest errors to this picture. [<ckpt_dir>/STAGE-worst.png]",
)
@threads_option
@config_options
@click.pass_context
def predict(
    ctx: click.Context,
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    stage: str,
    output: Path | None,
    worst: Path | None,
    threads: int | None,
) -> None:
    """Evaluate a stage's best checkpoint on the validation data.

    Reports PCK at 0.02, 0.05 and 0.1, AUC and the mean distance, in all and for each keypoint.
    """
    session = open_session(config, opts, march, stage=stage, threads=threads, plugins=ctx.obj)
    from carkp_core.train.distributed import is_main_process
    from carkp_core.train.interrupts import StoppedError

    try:
        prediction = predict_stage(session, output, worst)
    except StoppedError as stop:
        click.echo("stopped", err=True)
        ctx.exit(stop.exit_status)
    if not is_main_process():
        return
    write_json(json_path, prediction.to_json())
    console = Console()
    console.print(f"{stage}: {prediction.samples} samples")
    console.print(metrics_table(prediction.metrics))
    if prediction.table:
        console.print(rows_table(prediction.table))
    for path in (output, prediction.worst):
        if path is not None:
            console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


def metrics_table(metrics: Mapping[str, float]) -> Table:
    """A table of one row."""
    return rows_table([metrics])


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of rows with equal keys; fractions with four digits, other numbers with two."""
    table = Table(show_edge=False)
    for name in rows[0]:
        table.add_column(str(name), justify="right", no_wrap=name == "keypoint")
    for row in rows:
        table.add_row(*(_shown(name, value) for name, value in row.items()))
    return table


def _shown(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if "dist" in name else f"{value:.4f}"
    return str(value)
