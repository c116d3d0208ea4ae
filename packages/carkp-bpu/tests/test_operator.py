from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from carkp_bpu import hookspecs
from carkp_bpu.operator import BpuOperator, installed_operators
from carkp_core import hookimpl
from carkp_core.errors import PluginError
from carkp_core.plugins import plugin_manager


def plugin(function: object) -> SimpleNamespace:
    return SimpleNamespace(carkp_bpu_operators=function)


def test_the_hook_is_documented_and_takes_nothing() -> None:
    specification = hookspecs.carkp_bpu_operators
    assert list(inspect.signature(specification).parameters) == []
    assert len(specification.__doc__ or "") > 100


def test_operators_of_plugins_carry_their_provider() -> None:
    @hookimpl(optionalhook=True)
    def carkp_bpu_operators():  # type: ignore[no-untyped-def]
        yield BpuOperator("cube", kernel="math:cos")

    manager = plugin_manager(load_installed=False)
    manager.add("cubes", "carkp-cubes 1.0", lambda: plugin(carkp_bpu_operators))
    (found,) = installed_operators(manager)
    assert (found.kind, found.provider) == ("cube", "carkp-cubes 1.0")
    assert found.load_kernel()(0) == 1  # type: ignore[misc]
    assert (found.load_rules(), found.expand) == ((), "")
    assert installed_operators(manager) == (found,)
    assert not manager.problems


def test_without_such_plugins_there_are_none() -> None:
    assert installed_operators(plugin_manager(load_installed=False)) == ()


def test_a_hook_with_arguments_is_refused_by_name() -> None:
    @hookimpl(optionalhook=True)
    def carkp_bpu_operators(march):  # type: ignore[no-untyped-def]
        return []

    manager = plugin_manager(load_installed=False)
    manager.add("cubes", "carkp-cubes 1.0", lambda: plugin(carkp_bpu_operators))
    with pytest.raises(PluginError, match="carkp_bpu_operators has another signature"):
        installed_operators(manager)
