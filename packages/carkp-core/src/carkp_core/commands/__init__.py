"""Core's commands, one module each, imported when they are run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import click


@frozen
class Command:
    """A command of ``carkp``: ``load`` is ``"package.module:click_command"``; ``help`` is one line."""

    name: str
    load: str
    help: str
    provider: str = ""

    def resolve(self) -> click.Command:
        """Import the click command."""
        from carkp_core.catalog import load_object

        return load_object(self.load)  # type: ignore[no-any-return]
