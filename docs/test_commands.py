"""Every command line in the pages parses against the real commands; nothing is run."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from carkp_core.cli import carkp
from carkp_core.plugins import plugin_manager

ROOT = Path(__file__).parent.parent
LAUNCHERS = (("carkp",), ("python", "-m", "carkp_core"))


def command_lines(pages) -> Iterator[tuple[str, list[str]]]:
    """Each shell command in a ``sh`` block, split into words."""
    for page in pages:
        for block in page.blocks("sh"):
            text = block.text.replace("\\\n", " ")
            for line in text.splitlines():
                for command in line.split("&&"):
                    words = shlex.split(command, comments=True)
                    if words:
                        yield block.where, words


def arguments(words: list[str]) -> list[str] | None:
    """What follows ``carkp``, also behind torchrun; None for other programs."""
    if words[0] == "torchrun" and "-m" in words:
        words = ["python", *words[words.index("-m") :]]
    for launcher in LAUNCHERS:
        if tuple(words[: len(launcher)]) == launcher:
            return words[len(launcher) :]
    return None


@pytest.fixture(scope="module")
def root_context():
    return click.Context(carkp, info_name="carkp", obj=plugin_manager())


def parse(command: click.Command, args: list[str], parent: click.Context) -> None:
    """Parse as click would, through groups; files that a command wants to exist are taken as existing."""
    with command.make_context(command.name, list(args), parent=parent, resilient_parsing=False) as ctx:
        rest = [*getattr(ctx, "_protected_args", ()), *ctx.args]
        if isinstance(command, click.Group) and rest:
            _, child, child_args = command.resolve_command(ctx, rest)
            assert child is not None
            parse(child, child_args, ctx)


@pytest.fixture
def existing_files(monkeypatch):
    """Paths in the pages stand for files of the reader's."""
    original = click.Path.convert

    def convert(self, value, param, ctx):
        exists, self.exists = self.exists, False
        try:
            return original(self, value, param, ctx)
        finally:
            self.exists = exists

    monkeypatch.setattr(click.Path, "convert", convert)


@pytest.mark.usefixtures("existing_files")
def test_every_command_line_parses(pages, root_context):
    wrong, count = [], 0
    for where, words in command_lines(pages):
        args = arguments(words)
        if args is None:
            continue
        count += 1
        try:
            parse(carkp, args, root_context)
        except click.exceptions.Exit:
            pass  # --help
        except click.ClickException as error:
            wrong.append(f"{where}: {shlex.join(words)}: {error.format_message()}")
    assert wrong == []
    assert count > 20


def test_every_command_in_prose_exists_with_its_options(pages, root_context):
    """Inline code such as ``carkp train --stage float`` may leave out options, and name arguments in capitals."""
    wrong = []
    for page in pages:
        for where, code in page.inline_code():
            args = arguments(shlex.split(code)) if code.startswith(("carkp ", "python -m carkp_core ")) else None
            if args is None:
                continue
            unknown = unknown_words(args, root_context)
            if unknown:
                wrong.append(f"{where}: {code}: {unknown}")
    assert wrong == []


def unknown_words(args: list[str], root: click.Context) -> str:
    """The first command or option that does not exist, or nothing."""
    command: click.Command = carkp
    ctx = root
    for word in args:
        if word.startswith("-"):
            options = {name for param in command.get_params(ctx) for name in param.opts}
            if word.partition("=")[0] not in options:
                return f"{command.name} has no {word}"
        elif isinstance(command, click.Group):
            child = command.get_command(ctx, word)
            if child is None:
                return f"no command {word}"
            command, ctx = child, click.Context(child, info_name=word, parent=ctx)
    return ""


def test_every_nox_session_named_exists(pages):
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    named = {name for page in pages for name in re.findall(r"nox -s ([a-z]+)", page.text)}
    assert named <= sessions


def test_every_python_program_named_exists(pages):
    missing = []
    for where, words in command_lines(pages):
        if words[0] == "python" and words[1].endswith(".py") and not (ROOT / words[1]).exists():
            missing.append(f"{where}: {words[1]}")
    for page in pages:
        for where, code in page.inline_code():
            program = re.fullmatch(r"python (\S+\.py)(?: .*)?", code)
            if program and not (ROOT / program[1]).exists():
                missing.append(f"{where}: {program[1]}")
    assert missing == []
