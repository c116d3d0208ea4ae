"""``carkp infer``: draw a model's answer on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from carkp_core.cli_options import config_options, write_json
from carkp_core.stages import STAGES

if TYPE_CHECKING:
    from carkp_core.inference import InferenceResult


@click.command("infer")
@config_options
@click.option(
    "--model-inputs",
    multiple=True,
    required=True,
    metavar="img:PATH",
    help="An image, or a folder of images. May be repeated.",
)
@click.option("--save-path", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where to write.")
@click.option("--stage", type=click.Choice(STAGES), default="int_infer", show_default=True, help="Whose checkpoint.")
@click.pass_context
def infer(
    ctx: click.Context,
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    model_inputs: tuple[str, ...],
    save_path: Path,
    stage: str,
) -> None:
    """Run a stage's model on images; write each image with the answer drawn on it, and a JSON file beside it."""
    from carkp_core.inference import infer_images, parse_model_input
    from carkp_core.session import open_session

    paths = [parse_model_input(text) for text in model_inputs]
    session = open_session(config, opts, march, stage=stage, plugins=ctx.obj)
    result = infer_images(session, paths, save_path, stage)
    print_result(result, Console())
    write_json(json_path, result.to_json())


def print_result(result: InferenceResult, console: Console) -> None:
    """Print what was written and what was skipped."""
    for image in result.images:
        console.print(f"{image.image} -> {image.picture}", markup=False, highlight=False, soft_wrap=True)
    for path, reason in result.skipped:
        console.print(f"{path}: skipped, {reason}", markup=False, highlight=False, soft_wrap=True)
    skipped = f", {len(result.skipped)} skipped" if result.skipped else ""
    console.print(f"{len(result.images)} drawn with {result.stage}{skipped}", highlight=False)
