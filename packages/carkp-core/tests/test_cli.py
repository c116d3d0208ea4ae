from __future__ import annotations

import subprocess
import sys

import click

from carkp_core.cli import run
from carkp_core.commands import Command
from carkp_core.errors import DataError
from carkp_core.plugins import module_plugin, plugin_manager

HEAVY = ("torch", "cv2", "lmdb", "numba", "onnx", "matplotlib", "joblib")


def loaded_after(*arguments):
    program = (
        "import sys\nfrom carkp_core.cli import run\n"
        f"run({list(arguments)!r})\n"
        f"print('loaded:', sorted(m for m in {HEAVY!r} if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1]


def test_help_and_plugins_import_nothing_heavy():
    assert loaded_after("--help") == "loaded: []"
    assert loaded_after("plugins", "--verbose") == "loaded: []"


def test_module_form_works():
    result = subprocess.run(
        [sys.executable, "-m", "carkp_core", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("carkp, version ")


def test_unknown_command_suggests(capsys):
    assert run(["trian"]) == 2
    assert "Did you mean 'train'" in capsys.readouterr().err


@click.command()
def failing():
    raise DataError("no images", where="raw", remedy="look there")


@click.command()
@click.pass_context
def finding(ctx):
    ctx.exit(1)


@click.command()
def importing():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as stop:
        raise ImportError("half a module") from stop


def test_user_errors_are_printed_without_a_traceback(capsys):
    manager = plugin_manager(load_installed=False)
    commands = [Command("failing", f"{__name__}:failing", "x"), Command("finding", f"{__name__}:finding", "x")]
    sys.modules[__name__] = sys.modules.get(__name__) or _this_module()
    manager.add("mine", "mine", lambda: module_plugin(carkp_commands=lambda: commands))
    assert run(["failing"], manager) == 2
    error = capsys.readouterr().err
    assert error == "error: raw: no images\n  do: look there\n"
    assert run(["finding"], manager) == 1


def test_ctrl_c_that_breaks_an_import_ends_as_ctrl_c(capsys):
    manager = plugin_manager(load_installed=False)
    sys.modules[__name__] = sys.modules.get(__name__) or _this_module()
    commands = [Command("importing", f"{__name__}:importing", "x")]
    manager.add("mine", "mine", lambda: module_plugin(carkp_commands=lambda: commands))
    assert run(["importing"], manager) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-m", "carkp_core", "plugins", "--verbose"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(), errors) == (0, "")


def _this_module():
    from types import ModuleType

    module = ModuleType(__name__)
    module.failing, module.finding, module.importing = failing, finding, importing
    return module


def test_plugin_problems_warn_in_one_line_and_plugins_exits_1(capsys):
    manager = plugin_manager(load_installed=False)
    manager.add("bad", "bad 0.1", lambda: 1 / 0)
    assert run(["config", "--help"], manager) == 0
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["plugins"], manager) == 1
    assert "bad 0.1" in capsys.readouterr().err
