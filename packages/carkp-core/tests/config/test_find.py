from __future__ import annotations

import pytest

from carkp_core.config.find import find_config
from carkp_core.errors import ConfigError
from carkp_core.plugins import module_plugin, plugin_manager


@pytest.fixture
def shipped(tmp_path):
    path = tmp_path / "ship" / "net.py"
    path.parent.mkdir()
    path.write_text("a = 1\n")
    return path


@pytest.fixture
def plugins(shipped):
    manager = plugin_manager(load_installed=False)
    manager.add("mine", "mine 1.0", lambda: module_plugin(carkp_configs=lambda: {"net": str(shipped)}))
    return manager


def test_a_file_wins(tmp_path, plugins):
    own = tmp_path / "net.py"
    own.write_text("")
    assert find_config(str(own), plugins) == own


@pytest.mark.parametrize("name", ["net", "configs/keypoint/net.py"])
def test_shipped_by_name_and_by_the_tutorials_path(name, plugins, shipped):
    assert find_config(name, plugins) == shipped


def test_unknown_name_suggests(plugins):
    with pytest.raises(ConfigError, match="did you mean 'net'"):
        find_config("nett", plugins)


def test_two_plugins_with_one_name(plugins):
    plugins.add("other", "other 2.0", lambda: module_plugin(carkp_configs=lambda: {"net": "elsewhere.py"}))
    with pytest.raises(ConfigError, match="more than one package"):
        find_config("net", plugins)
