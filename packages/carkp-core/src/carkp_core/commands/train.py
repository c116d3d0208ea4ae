"""``carkp train``: run a stage of a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from carkp_core.cli_options import config_options, write_json
from carkp_core.session import open_session
from carkp_core.stages import STAGES

if TYPE_CHECKING:
    from carkp_core.session import Session


def train_stage(session: Session) -> dict[str, float]:
    """Run the session's stage and return its best validation metrics.

    The same session and seed give the same result, initial weights included.
    """
    from carkp_core.train.seeding import seed_everything

    seed_everything(session.context.seed)
    metrics: dict[str, float] = session.trainer(session.context.stage).fit()
    return metrics


@click.command()
@click.option("--stage", type=click.Choice(STAGES), required=True, help="What to run.")
@click.option("--resume", is_flag=True, help="Go on from the stage's last checkpoint.")
@config_options
@click.pass_context
def train(
    ctx: click.Context,
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    stage: str,
    resume: bool,
) -> None:
    """Run a stage: float, calibration, qat or int_infer.

    Each leaves <ckpt_dir>/STAGE-checkpoint-{best,last}.pth.tar and a folder of records under <ckpt_dir>/runs. Ctrl-C
    (exit status 130) or SIGTERM (143) saves the last checkpoint first; --resume goes on from there, and ends as if it
    had never stopped. A second Ctrl-C ends at once.

    With several processes: torchrun --nproc-per-node 2 -m carkp_core train ...
    """
    session = open_session(config, opts, march, stage=stage, resume=resume, plugins=ctx.obj)
    from carkp_core.train.distributed import is_main_process
    from carkp_core.train.interrupts import StoppedError

    try:
        metrics = train_stage(session)
    except StoppedError as stop:
        click.echo(stop.message, err=True)
        ctx.exit(stop.exit_status)
    if is_main_process():
        context = session.context
        write_json(json_path, {"stage": stage, "metrics": metrics, "checkpoint": context.checkpoint(stage)})
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()) or "no validation metrics"
        text = f"{stage}: {shown}\nresults in {context.ckpt_dir}"
        Console().print(text, highlight=False, markup=False, soft_wrap=True)
