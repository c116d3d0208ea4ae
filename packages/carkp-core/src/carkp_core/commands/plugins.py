"""``carkp plugins``: what is installed, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from carkp_core.catalog import KINDS
from carkp_core.cli_options import json_option, write_json
from carkp_core.plugins import PluginManager


@click.group("plugins", invoke_without_command=True)
@click.option("--verbose", "-v", is_flag=True, help="List components, commands, configs and marches.")
@json_option
@click.pass_context
def plugins(ctx: click.Context, verbose: bool, json_path: Path | None) -> None:
    """List installed plugins and every problem with them (then exit with status 1)."""
    if ctx.invoked_subcommand is not None:
        return
    manager: PluginManager = ctx.obj
    summary = summarize(manager)
    for entry in summary["plugins"]:
        click.echo(f"{entry['name']:<12} {entry['distribution']:<24} {', '.join(entry['hooks'])}")
    if verbose:
        _print_offers(summary)
    for problem in summary["problems"]:
        click.echo(f"problem: {problem['provider']}: {problem['what']}; {problem['remedy']}", err=True)
    write_json(json_path, summary)
    if summary["problems"]:
        ctx.exit(1)


def summarize(manager: PluginManager) -> dict[str, Any]:
    """Plugins with their hooks, everything they offer by kind, and problems."""
    catalog = manager.catalog()
    problems = manager.check()
    listed = []
    for name, plugin in manager.list_name_plugin():
        hooks = sorted(caller.name for caller in manager.get_hookcallers(plugin) or ())
        listed.append({"name": name, "distribution": manager.provider(name), "hooks": hooks})
    return {
        "plugins": listed,
        "components": {kind: [c.name for c in catalog.of_kind(kind)] for kind in KINDS if catalog.of_kind(kind)},
        "commands": {command.name: command.provider for command in manager.commands()},
        "configs": sorted(manager.configs()),
        "marches": {march: b.provider for b in manager.backends() for march in b.marches},
        "operators": sorted(operator.name for operator in manager.operators()),
        "problems": [{"provider": p.provider, "what": p.what, "remedy": p.remedy} for p in problems],
    }


def _print_offers(summary: dict[str, Any]) -> None:
    for kind, names in summary["components"].items():
        click.echo(f"\n{kind}\n  " + ", ".join(names))
    for title in ("commands", "configs", "marches", "operators"):
        click.echo(f"\n{title}\n  " + ", ".join(summary[title]))
