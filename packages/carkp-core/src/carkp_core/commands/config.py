"""``carkp config``: show, check and copy configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from carkp_core.cli_options import json_option, march_option, opts_option, write_json
from carkp_core.config.find import find_config
from carkp_core.errors import ConfigError
from carkp_core.plugins import PluginManager


@click.group("config")
def config() -> None:
    """Show, check or copy a config."""


@config.command()
@click.argument("name")
@click.option("--origins/--no-origins", default=True, help="Say where each value was written.")
@opts_option
@march_option
@json_option
@click.pass_obj
def show(
    manager: PluginManager, name: str, origins: bool, opts: tuple[str, ...], march: str | None, json_path: Path | None
) -> None:
    """Print a config as it results, with the origin of each value."""
    from carkp_core.config import show as text
    from carkp_core.session import open_session

    session = open_session(name, opts, march, plugins=manager)
    for line in text.show(session.config, origins):
        click.echo(line)
    write_json(json_path, {"config": str(session.context.config_path), "values": _plain(session.config)})


@config.command()
@click.argument("name")
@opts_option
@march_option
@json_option
@click.pass_obj
def check(manager: PluginManager, name: str, opts: tuple[str, ...], march: str | None, json_path: Path | None) -> None:
    """Check a config without running anything: types, arguments, stages."""
    from carkp_core.derive import trainer_node
    from carkp_core.session import open_session
    from carkp_core.stages import STAGES

    session = open_session(name, opts, march, plugins=manager)
    stages = [stage for stage in STAGES if trainer_node(session.config, stage) is not None]
    click.echo(
        f"{session.context.config_path}: sound; stages {', '.join(stages) or 'none'}; march {session.context.march}"
    )
    payload = {"config": str(session.context.config_path), "ok": True, "stages": stages, "march": session.context.march}
    write_json(json_path, payload)


@config.command()
@click.argument("name")
@json_option
@click.pass_obj
def init(manager: PluginManager, name: str, json_path: Path | None) -> None:
    """Write a shipped config to NAME.py in this folder, to be edited."""
    source = find_config(name, manager)
    target = Path(f"{source.stem}.py")
    if target.exists():
        raise ConfigError("the file exists already", where=str(target), remedy="move it away, or edit it")
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    click.echo(f"wrote {target}; use it with --config {target}")
    write_json(json_path, {"config": str(target), "from": str(source)})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else repr(value)
