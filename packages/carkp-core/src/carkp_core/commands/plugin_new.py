"""``carkp plugin new NAME --kind K``: a package that passes its own tests, to begin from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import click
import jinja2

from carkp_core import __version__
from carkp_core.cli_options import json_option, write_json
from carkp_core.errors import PluginError

#: What can be begun: the package's title, and what it depends on beside carkp-core.
KINDS = {
    "backbone": ("A backbone for carkp.", ("torch",)),
    "dataset": ("A keypoint data set for carkp.", ("carkp-carfusion", "numpy", "opencv-python")),
    "operator": ("An operator for carkp.", ("attrs", "numpy", "torch")),
    "backend": ("An NPU for carkp.", ("attrs", "numpy")),
}

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEMPLATES = "commands/plugin_templates"


@click.group("plugin")
def plugin() -> None:
    """Tools for authors of plugins."""


@plugin.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(sorted(KINDS)), required=True, help="What the plugin offers.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="The folder to write; by default NAME.")
@json_option
def new(name: str, kind: str, out: Path | None, json_path: Path | None) -> None:
    """Write the package NAME with one part of the given kind, tests and a README."""
    folder = out or Path(name)
    written = write_package(name, kind, folder)
    for path in written:
        click.echo(path)
    click.echo(f'\nNow: cd {folder} && pip install -e ".[test]" && pytest')
    write_json(json_path, {"name": name, "kind": kind, "folder": folder, "files": written})


def write_package(name: str, kind: str, folder: Path) -> tuple[Path, ...]:
    """Write a package that passes its own tests once it is installed.

    Parameters
    ----------
    name:
        The distribution's name: lower-case words with hyphens.
    kind:
        One of ``KINDS``.
    folder:
        Where to; it must be empty or not exist.

    Returns
    -------
    tuple
        The files, in order.

    Raises
    ------
    PluginError
        When the name cannot be a package's, or the folder is not empty.
    """
    if not _NAME.fullmatch(name):
        raise PluginError(
            "this cannot be a plugin's name", where="NAME", seen=name, allowed="lower-case words joined by hyphens"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PluginError(
            "the folder is not empty", where=str(folder), remedy="choose another with --out; nothing was written"
        )
    words, environment = words_of(name, kind), _environment()
    written = []
    for place, template in sorted(_templates(kind)):
        path = folder / place.replace("PACKAGE", words["package"]).removesuffix(".j2")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(environment.from_string(template).render(**words), encoding="utf-8")
        written.append(path)
    return tuple(written)


def words_of(name: str, kind: str) -> dict[str, Any]:
    """What the templates call the package.

    >>> words_of("my-net", "backbone")["class_name"]
    'MyNet'
    """
    title, others = KINDS[kind]
    major, minor = __version__.split(".")[:2]
    carkp = f">={major}.{minor},<{major}.{int(minor) + 1}"
    requirements = [f"carkp-core{carkp}", *(f"{r}{carkp}" if r.startswith("carkp-") else r for r in others)]
    return {
        "distribution": name,
        "package": name.replace("-", "_"),
        "class_name": "".join(word.capitalize() for word in name.split("-")),
        "title": title,
        "requirements": requirements,
    }


def _environment() -> jinja2.Environment:
    """Delimiters that Python and TOML leave alone."""
    return jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # the templates are Python, not HTML
        variable_start_string="@{",
        variable_end_string="}@",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
    )


def _templates(kind: str) -> Iterator[tuple[str, str]]:
    """(path in the package, template) of the files that every kind has, and of the kind's own."""
    root = resources.files("carkp_core").joinpath(_TEMPLATES)
    for part in ("common", kind):
        yield from _walk(root.joinpath(part), "")


def _walk(folder: Any, place: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{place}{entry.name}/")
        elif entry.name.endswith(".j2"):
            yield f"{place}{entry.name}", entry.read_text(encoding="utf-8")
