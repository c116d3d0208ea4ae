from __future__ import annotations

from types import ModuleType

import pytest

from carkp_core.backend import Backend, find_backend
from carkp_core.catalog import Component
from carkp_core.commands import Command
from carkp_core.errors import BackendError
from carkp_core.hookspecs import hookimpl
from carkp_core.operator import Operator
from carkp_core.plugins import core_misfit, module_plugin, plugin_manager


@pytest.fixture
def manager():
    return plugin_manager(load_installed=False)


def nothing():
    return []


def add(manager, name, **hooks):
    manager.add(name, f"{name} 1.0", lambda: module_plugin(**hooks))


def test_records_know_their_provider(manager):
    add(manager, "mine", carkp_components=lambda: [Component("loss", "X", "builtins:len")])
    assert manager.catalog()["X"].provider == "mine 1.0"


def test_a_plugin_that_raises_on_import_leaves_the_rest_working(manager):
    def explode():
        raise RuntimeError("boom")

    manager.add("bad", "bad 0.1", explode)
    (problem,) = manager.problems
    assert problem.provider == "bad 0.1"
    assert "RuntimeError: boom" in problem.what
    assert manager.commands()


def test_a_misspelt_hook_suggests(manager):
    add(manager, "typo", carkp_component=nothing)
    (problem,) = manager.problems
    assert "did you mean 'carkp_components'" in problem.what


def test_an_optional_hook_of_a_missing_plugin_is_fine(manager):
    module = ModuleType("optional")
    module.carkp_other_thing = hookimpl(optionalhook=True)(nothing)
    manager.add("optional", "optional 1.0", lambda: module)
    assert manager.problems == []


def test_a_wrong_signature_is_a_problem(manager):
    add(manager, "wrong", carkp_components=lambda surplus: [])
    (problem,) = manager.problems
    assert "surplus" in problem.what
    assert not manager.has_plugin("wrong")


def test_a_hook_that_raises_and_one_that_returns_rubbish(manager):
    def fail():
        raise KeyError("x")

    add(manager, "fails", carkp_components=fail)
    add(manager, "rubbish", carkp_components=lambda: ["not a component"])
    text = "\n".join(map(str, manager.check()))
    assert "carkp_components raised KeyError" in text
    assert "where a Component belongs" in text


def test_check_finds_every_clash(manager):
    for name in ("one", "two"):
        add(
            manager,
            name,
            carkp_components=lambda: [Component("loss", "Same", "builtins:len")],
            carkp_commands=lambda: [Command("same", "builtins:len", "")],
            carkp_configs=lambda: {"same": "x.py"},
            carkp_backends=lambda: [Backend("npu", ("m1",), "builtins:object")],
        )
    text = "\n".join(map(str, manager.check()))
    for what in ("component 'Same'", "command 'same'", "config 'same'", "march 'm1'"):
        assert what in text
    with pytest.raises(BackendError, match=r"one 1.0.*two 1.0"):
        find_backend(manager.backends(), "m1")


def test_blocked_plugins_stay_out():
    assert not plugin_manager(blocked=("bpu", "carfusion")).backends()


def test_unknown_march_names_the_package():
    with pytest.raises(BackendError, match="pip install carkp-bpu"):
        find_backend((), "bayes")


@pytest.mark.parametrize(
    ("requirements", "misfit"),
    [
        (["carkp-core==0.1.0", "numpy"], ""),
        (["carkp_core >=0.1,<0.2"], ""),
        (["carkp-core-extras==9"], ""),
        (["carkp-core==9; extra == 'future'"], ""),
        ([], ""),
        (["numpy", "carkp-core>=0.2"], "asks for carkp-core>=0.2, and 0.1.0 is installed"),
        (["carkp-core==banana"], "asks for 'carkp-core==banana', which cannot be read"),
    ],
)
def test_a_plugin_for_another_core_is_known_by_its_requirement(requirements, misfit):
    assert core_misfit(requirements, installed="0.1.0") == misfit


def distribution(folder, name, requirement, plugin="import nothing_of_the_kind"):
    """An installed distribution as pip leaves it: a module, its metadata, its entry point."""
    info = folder / f"{name}-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.1\nRequires-Dist: {requirement}\n")
    (info / "entry_points.txt").write_text(f"[carkp]\n{name} = {name}_plugin\n")
    (folder / f"{name}_plugin.py").write_text(plugin)


def test_one_built_for_another_core_is_left_out_and_the_rest_works(tmp_path, monkeypatch):
    distribution(tmp_path, "acmefuture", "carkp-core>=7")
    distribution(tmp_path, "acmebroken", "carkp-core>=0.1")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = plugin_manager()
    texts = {problem.provider: str(problem) for problem in found.problems}
    assert "asks for carkp-core>=7" in texts["acmefuture 3.1"]
    assert "pip install --upgrade acmefuture carkp-core" in texts["acmefuture 3.1"]
    assert "cannot be imported (ModuleNotFoundError" in texts["acmebroken 3.1"]
    assert not found.has_plugin("acmefuture")
    assert found.has_plugin("bpu")
    assert "MSELoss" in found.catalog()


def test_two_operators_of_one_name_are_a_problem(manager):
    for name in ("one", "two"):
        add(manager, name, carkp_operators=lambda: [Operator("same", "builtins:len")])
    text = "\n".join(map(str, manager.check()))
    assert "one 1.0, two 1.0: operator 'same' is offered 2 times" in text


def test_hook_calls_are_printed_on_request(monkeypatch, capsys):
    monkeypatch.setenv("CARKP_TRACE", "1")
    traced = plugin_manager(load_installed=False)
    seen = []
    add(traced, "mine", carkp_quant_scheme=lambda node, march: seen.append(march) or "scheme")
    assert traced.hook.carkp_quant_scheme(node="a node", march="bayes") == "scheme"
    traced.catalog()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "carkp trace: 1 carkp_quant_scheme(node='a node', march='bayes') asks mine"
    assert lines[1] == "carkp trace: 1 carkp_quant_scheme -> 'scheme'"
    assert lines[2].startswith("carkp trace: 2 carkp_components of core (carkp-core")
    monkeypatch.setenv("CARKP_TRACE", "0")
    plugin_manager(load_installed=False).catalog()
    assert capsys.readouterr().err == ""
