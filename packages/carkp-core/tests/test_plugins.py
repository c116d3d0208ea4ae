from __future__ import annotations

from types import ModuleType

import pytest

from carkp_core.backend import Backend, find_backend
from carkp_core.catalog import Component
from carkp_core.commands import Command
from carkp_core.errors import BackendError
from carkp_core.hookspecs import hookimpl
from carkp_core.plugins import module_plugin, plugin_manager


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
