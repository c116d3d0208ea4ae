"""``carkp plugins``: what is installed, and what is wrong with it."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from carkp_core.catalog import KINDS
from carkp_core.cli_options import json_option, write_json
from carkp_core.plugins import PluginManager

#: What ``--verbose`` shows the versions of.
_VERSIONS = ("carkp-core", "carkp-bpu", "carkp-carfusion", "torch", "numpy", "onnx", "pluggy")


@click.command("plugins")
@click.option("--verbose", "-v", is_flag=True, help="Show components, commands, configs, marches, versions, conflicts.")
@json_option
@click.pass_context
def plugins(ctx: click.Context, verbose: bool, json_path: Path | None) -> None:
    """List installed plugins and every problem with them (then exit with status 1)."""
    manager: PluginManager = ctx.obj
    summary = summarize(manager)
    console = Console()
    console.print(_plugin_table(summary["plugins"]))
    if verbose:
        _print_offers(console, summary)
    for problem in summary["problems"]:
        click.echo(f"problem: {problem['provider']}: {problem['what']}; {problem['remedy']}", err=True)
    write_json(json_path, summary)
    if summary["problems"]:
        ctx.exit(1)


def summarize(manager: PluginManager) -> dict[str, Any]:
    """Plugins with their hooks, all that they offer with who offers it, conflicts, versions and problems."""
    catalog = manager.catalog()
    problems = manager.check()
    listed = []
    for name, plugin in manager.list_name_plugin():
        hooks = sorted(caller.name for caller in manager.get_hookcallers(plugin) or ())
        module = getattr(plugin, "__name__", type(plugin).__name__)
        listed.append({"name": name, "distribution": manager.provider(name), "module": module, "hooks": hooks})
    parts = [component for kind in KINDS for component in catalog.of_kind(kind)]
    return {
        "plugins": listed,
        "components": {kind: [c.name for c in catalog.of_kind(kind)] for kind in KINDS if catalog.of_kind(kind)},
        "parts": [{"kind": c.kind, "name": c.name, "load": c.load, "provider": c.provider} for c in parts],
        "commands": {command.name: command.provider for command in manager.commands()},
        "configs": {name: [provider for provider, _ in found] for name, found in sorted(manager.configs().items())},
        "marches": {march: b.provider for b in manager.backends() for march in b.marches},
        "operators": {operator.name: operator.provider for operator in manager.operators()},
        "conflicts": {name: [c.provider for c in found] for name, found in catalog.clashes().items()},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS}},
        "problems": [{"provider": p.provider, "what": p.what, "remedy": p.remedy} for p in problems],
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _plugin_table(listed: list[dict[str, Any]]) -> Table:
    table = Table("plugin", "distribution", "module", "hooks", box=None, pad_edge=False)
    for entry in listed:
        table.add_row(entry["name"], entry["distribution"], entry["module"], ", ".join(entry["hooks"]))
    return table


def _print_offers(console: Console, summary: dict[str, Any]) -> None:
    table = Table("kind", "component", "import path", "distribution", box=None, pad_edge=False)
    for part in summary["parts"]:
        table.add_row(part["kind"], part["name"], part["load"], part["provider"])
    console.print("\n", table)
    for title in ("commands", "configs", "marches", "operators", "versions", "conflicts"):
        offers = {name: ", ".join(by) if isinstance(by, list) else by for name, by in summary[title].items()}
        console.print(f"\n{title}")
        for provider in dict.fromkeys(offers.values()):
            names = ", ".join(name for name, by in offers.items() if by == provider)
            console.print(f"  [bold]{provider}[/bold]: {names}" if title != "versions" else f"  {names} {provider}")
        if not offers:
            console.print("  none")
