"""``hooks.md``: the hook specifications as a page, and how docstrings become Markdown."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs

from carkp_bpu import hookspecs as bpu_hookspecs
from carkp_bpu.operator import BpuOperator
from carkp_core import hookspecs
from carkp_core.backend import Backend
from carkp_core.catalog import KINDS, Component
from carkp_core.commands import Command
from carkp_core.operator import Operator

#: What plugins return from the hooks that name things.
RECORDS = (Component, Command, Backend, Operator, BpuOperator)

ABOUT = """\
This page is generated from the hook specifications (`python docs/generate.py`); do not edit it.
[Writing a plugin](write-a-plugin.md) is the same thing as a walk."""

RULES = """\
- A hook's implementation may leave out arguments that it does not need; it must not add any.
- `carkp plugins` lists installed plugins with their hooks and every problem: a misspelt hook, a wrong signature, a name
  that two packages offer, a plugin that cannot be imported. Such a problem stops only the part it is about.
- `carkp_core.plugins.plugin_manager()` is a value. Tests make their own, with `load_installed=False` for core alone."""


def hooks_page() -> str:
    """``hooks.md`` as a whole."""
    parts = ["# Hooks", ABOUT, markdown(_doc(hookspecs)), RULES]
    parts += ["## Hooks of carkp-core", *(_hook(spec) for spec in hooks_of(hookspecs))]
    parts += [
        "## Hooks of carkp-bpu",
        markdown(_doc(bpu_hookspecs)),
        *(_hook(spec) for spec in hooks_of(bpu_hookspecs)),
    ]
    parts += ["## Records", "What the hooks that name things return. `provider` is always filled in by carkp."]
    parts += [_record(record) for record in RECORDS]
    parts += ["## Kinds of components", ", ".join(f"`{kind}`" for kind in KINDS) + "."]
    return "\n\n".join(parts) + "\n"


def hooks_of(module: ModuleType) -> list[Callable[..., Any]]:
    """The hook specifications that a module defines, in its order."""
    marked = f"{hookspecs.PROJECT}_spec"  # the attribute that pluggy's marker leaves on a specification
    return [value for value in vars(module).values() if hasattr(value, marked) and value.__module__ == module.__name__]


def _hook(spec: Callable[..., Any]) -> str:
    options = getattr(spec, f"{hookspecs.PROJECT}_spec")
    asked = "first answer that is not None wins" if options["firstresult"] else "every plugin is asked"
    signature = f"{spec.__name__}{inspect.signature(spec)}".replace("'", "")
    return f"### `{spec.__name__}`\n\n```text\n{signature}\n```\n\n*{asked}*\n\n{markdown(_doc(spec))}"


def _record(record: Any) -> str:
    fields = [
        f"{f.name}: {f.type}" + ("" if f.default is attrs.NOTHING else f" = {f.default!r}")
        for f in record_fields(record)
    ]
    name = record.__name__
    return f"### `{name}`\n\n```text\n{record.__module__}.{name}({', '.join(fields)})\n```\n\n{markdown(_doc(record))}"


def record_fields(record: Any) -> list[attrs.Attribute[Any]]:
    """A record's fields but for ``provider``, which carkp fills in."""
    return [field for field in attrs.fields(record) if field.name != "provider"]


def _doc(thing: Any) -> str:
    text = inspect.getdoc(thing)
    assert text, f"{thing} has no docstring"
    return text


def markdown(docstring: str) -> str:
    """A docstring as Markdown: literals, blocks after ``::`` and numpy's section of parameters."""

    def fenced(block: re.Match[str]) -> str:
        return f":\n\n```text\n{textwrap.dedent(block[1]).strip()}\n```\n\n"

    text = re.sub(r"::\n\n((?:(?: {4}.*)?\n)+)", fenced, docstring.replace("``", "`") + "\n")
    return re.sub(r"Parameters\n-+\n([\s\S]*)", lambda section: _parameters(section[1]), text).strip()


def _parameters(section: str) -> str:
    """The parameters of numpy's section as a list, but for ``provider``."""
    entries = re.findall(r"^(\w+(?:, \w+)*):.*\n((?: {4}.*\n?)+)", section, re.MULTILINE)
    return "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in entries if name != "provider")
