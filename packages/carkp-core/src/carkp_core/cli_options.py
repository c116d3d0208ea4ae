"""Options that commands share, and the writing of their JSON results."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the result as JSON to this file.",
)

#: What pictures are written as.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


class PicturePath(click.Path):
    """A file to draw to; another ending than an image's is refused before the work starts."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            self.fail(f"{str(path)!r} has no ending of a picture: {', '.join(PICTURE_SUFFIXES)}", param, ctx)
        return path


config_option = click.option("--config", required=True, help="A config file, or the name of a shipped config.")

march_option = click.option("--march", default=None, help="Override the config's march.")

opts_option = click.option(
    "--opts",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a top-level name (data_root=X) or a dotted key (float_trainer.num_epochs=2). May be repeated.",
)

threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=None,
    help="Threads of simulator and torch, and most processes that load data; by default as many as torch uses.",
)


def config_options(command: F) -> F:
    """Add ``--config``, ``--march``, ``--opts`` and ``--json`` to a click command."""
    for option in (json_option, opts_option, march_option, config_option):
        command = option(command)
    return command


def write_json(path: Path | None, payload: Mapping[str, Any]) -> None:
    """Write ``payload`` to ``path`` atomically; nothing when ``path`` is None. NaN becomes null."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(_plain(payload), indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
