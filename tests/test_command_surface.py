"""The commands and their options as golden text: a change of the command line is a visible decision.

``UPDATE_GOLDEN=1 pytest tests/test_command_surface.py`` writes the file anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from carkp_core.cli import carkp
from carkp_core.plugins import plugin_manager

GOLDEN = Path(__file__).with_name("command_surface.golden.txt")

#: The commands that mirror the tutorial's tools, and those of carkp's own that its pages promise.
PROMISED = (
    *("gen-carfusion-data", "carfusion-packer", "calops", "train", "predict", "infer", "align-bpu-validation"),
    *("model-checker", "compile-perf", "export-onnx", "quickstart", "synth-carfusion", "view", "plugins", "config"),
    *("compare", "quant-report"),
)


def surface() -> str:
    ctx = click.Context(carkp, info_name="carkp", obj=plugin_manager())
    return "\n".join(described(carkp, ctx)) + "\n"


def described(command: click.Command, ctx: click.Context) -> Iterator[str]:
    """A command's line, a line for each parameter, then its subcommands."""
    yield ctx.command_path
    yield from (f"    {parameter(param)}" for param in command.params)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from described(child, click.Context(child, info_name=name, parent=ctx))


def parameter(param: click.Parameter) -> str:
    """Names, type and what is remarkable about a parameter. Defaults that depend on the machine show as their words."""
    kind = "flag" if getattr(param, "is_flag", False) else param.type.name
    if isinstance(param.type, click.Choice):
        kind = "|".join(str(choice) for choice in param.type.choices)
    names = "/".join([*param.opts, *param.secondary_opts])
    notes = ["required"] * param.required + ["repeatable"] * (getattr(param, "multiple", False) or param.nargs == -1)
    return " ".join([param.param_type_name, names, kind, *notes])


def test_the_command_line_is_as_the_golden_text_says():
    found = surface()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8"), "meant? UPDATE_GOLDEN=1 pytest tests/test_command_surface.py"


@pytest.mark.parametrize("name", PROMISED)
def test_every_promised_command_has_json_and_one_line_of_help(name):
    (command,) = [command for command in plugin_manager().commands() if command.name == name]
    assert command.help
    assert "\n" not in command.help
    click_command = command.resolve()
    ctx = click.Context(click_command, info_name=name)
    leaves = [click_command]
    if isinstance(click_command, click.Group) and not click_command.invoke_without_command:
        leaves = [click_command.get_command(ctx, child) for child in click_command.list_commands(ctx)]
    for leaf in leaves:
        assert "--json" in {option for param in leaf.params for option in param.opts}, leaf.name
        assert leaf.help
