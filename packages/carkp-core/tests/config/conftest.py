from __future__ import annotations

import attrs
import pytest

from carkp_core.catalog import Catalog, Component
from carkp_core.context import Context
from carkp_core.plugins import plugin_manager


@pytest.fixture
def context(tmp_path):
    plugins = plugin_manager(load_installed=False)
    components = [
        Component("optimizer", "AdamW", "torch.optim:AdamW"),
        Component("backbone", "Broken", "carkp_nowhere:Broken"),
        Component("head", "Twice", "builtins:dict", "one"),
        Component("head", "Twice", "builtins:list", "two"),
    ]
    made = Context(plugins, plugins.catalog(), (), "bayes", "task", tmp_path)
    return attrs.evolve(made, catalog=Catalog(components))
