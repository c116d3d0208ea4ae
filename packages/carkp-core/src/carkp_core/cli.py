"""The ``carkp`` command. Commands are named by plugins and imported when they are run."""

from __future__ import annotations

import difflib
import sys
from typing import Any

import click

from carkp_core import __version__
from carkp_core.errors import CarkpError
from carkp_core.plugins import PluginManager, plugin_manager
from carkp_core.siblings import installation_of


class PluginGroup(click.Group):
    """A click group whose commands come from the plugin manager in ``ctx.obj``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(command.name for command in _manager(ctx).commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for command in _manager(ctx).commands():
            if command.name == cmd_name:
                return command.resolve()
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            install = installation_of(args[0])
            hint = f" To get it: {install}." if install else f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"{error.message}{hint}", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = sorted((command.name, command.help) for command in _manager(ctx).commands())
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _manager(ctx: click.Context) -> PluginManager:
    root = ctx.find_root()
    if root.obj is None:
        root.obj = plugin_manager()
    assert isinstance(root.obj, PluginManager)
    return root.obj


@click.command(cls=PluginGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="carkp")
@click.pass_context
def carkp(ctx: click.Context) -> None:
    """From raw car frames to a quantized, checked, compiled and bit-exactly simulated keypoint network.

    Start with `carkp quickstart --out DIR`.
    """
    manager = _manager(ctx)
    if ctx.invoked_subcommand != "plugins" and manager.problems:
        click.echo(f"warning: {len(manager.problems)} plugin problem(s); see `carkp plugins`", err=True)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 findings, 2 usage or input errors, 130 interrupted."""
    sys.exit(run(args))


def run(args: list[str] | None = None, manager: PluginManager | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        result: Any = carkp.main(args, prog_name="carkp", standalone_mode=False, obj=manager or plugin_manager())
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CarkpError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_status
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if error.filename is None:
            raise
        click.echo(f"error: {error.filename}: {error.strerror}", err=True)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich's way to say that the reader of a pipe has gone
            return 0
        return stop.code if isinstance(stop.code, int) else 2
    except Exception as error:
        if not _interrupted(error):
            raise
        click.echo("interrupted", err=True)
        return 130
    return result if isinstance(result, int) else 0


def _interrupted(error: BaseException | None) -> bool:
    """True for an error that a Ctrl-C caused, such as an import that it broke off."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
