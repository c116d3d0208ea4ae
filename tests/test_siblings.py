"""The names that core tells of its sibling packages are the ones that they offer."""

from __future__ import annotations

import pytest

from carkp_core.catalog import Catalog
from carkp_core.cli import run
from carkp_core.config.find import find_config
from carkp_core.errors import ConfigError
from carkp_core.plugins import PluginManager, plugin_manager
from carkp_core.siblings import OFFERS, installation_of


def offered(package: str, manager: PluginManager) -> set[str]:
    parts = (*manager.catalog().values(), *manager.commands())
    named = {part.name for part in parts if part.provider.split()[0] == package}
    configs = {name for name, offers in manager.configs().items() if offers[0][0].split()[0] == package}
    return named | configs


@pytest.mark.parametrize("package", OFFERS)
def test_the_names_are_those_that_the_package_offers(package):
    assert set(OFFERS[package]) == offered(package, plugin_manager())


def test_messages_say_what_to_install(capsys):
    core = plugin_manager(load_installed=False)
    with pytest.raises(ConfigError, match="do: pip install carkp-carfusion"):
        Catalog(()).resolve("HeatmapDecoder")
    with pytest.raises(ConfigError, match="do: pip install carkp-carfusion"):
        find_config("configs/keypoint_efficientnetb0_carfusion.py", core)
    assert run(["hbm", "info", "x.hbm"], core) == 2
    assert "To get it: pip install carkp-bpu." in capsys.readouterr().err
    assert installation_of("nobody's") == ""
