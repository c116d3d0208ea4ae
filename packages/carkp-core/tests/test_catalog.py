from __future__ import annotations

import pytest

from carkp_core.catalog import Catalog, Component, load_object
from carkp_core.errors import ConfigError, PluginError


def test_names_paths_and_callables_resolve():
    catalog = Catalog([Component("loss", "Length", "builtins:len")])
    assert catalog.resolve("Length") is len
    assert catalog.resolve("builtins.len") is len
    assert catalog.resolve(len) is len


def test_unknown_name_suggests():
    catalog = Catalog([Component("loss", "MSELoss", "builtins:len")])
    with pytest.raises(ConfigError, match="did you mean 'MSELoss'"):
        catalog.resolve("MSEloss", "model.loss")


def test_unknown_kind():
    with pytest.raises(PluginError, match="unknown kind"):
        Component("gadget", "X", "builtins:len")


def test_a_clash_is_fatal_only_when_used():
    catalog = Catalog(
        [
            Component("loss", "A", "a:b", "one"),
            Component("head", "A", "c:d", "two"),
            Component("loss", "B", "builtins:len"),
        ]
    )
    assert catalog.resolve("B") is len
    assert set(catalog.clashes()) == {"A"}
    with pytest.raises(PluginError, match=r"one.*two"):
        catalog.resolve("A")


def test_a_component_that_does_not_import_names_its_provider():
    catalog = Catalog([Component("loss", "A", "carkp_nowhere:x", "broken-package 1.0")])
    with pytest.raises(PluginError, match="broken-package"):
        catalog.resolve("A")


def test_load_object_walks_attributes():
    assert load_object("pathlib:Path.cwd")() == load_object("pathlib.Path").cwd()
