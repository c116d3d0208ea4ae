from __future__ import annotations

import json

from carkp_core.catalog import Component
from carkp_core.cli import run
from carkp_core.plugins import module_plugin, plugin_manager


def nothing():
    return []


def test_lists_what_is_offered(tmp_path, capsys):
    assert run(["plugins", "--verbose", "--json", str(tmp_path / "p.json")]) == 0
    text = capsys.readouterr().out
    assert "carkp-bpu" in text
    assert "MSELoss" in text
    listed = json.loads((tmp_path / "p.json").read_text())
    assert listed["problems"] == []
    assert "bayes-e" in listed["marches"]
    assert {"kind": "loss", "name": "MSELoss", "load": "carkp_carfusion.models.loss:MSELoss"}.items() <= next(
        part for part in listed["parts"] if part["name"] == "MSELoss"
    ).items()
    assert listed["versions"]["carkp-core"] in text
    assert text.rstrip().endswith("none")


def test_conflicts_name_both_distributions(tmp_path, capsys):
    manager = plugin_manager(load_installed=False)
    for name in ("one", "two"):
        offer = [Component("loss", "Same", "builtins:len")]
        manager.add(name, f"{name} 1.0", lambda offer=offer: module_plugin(carkp_components=lambda: offer))
    assert run(["plugins", "-v", "--json", str(tmp_path / "p.json")], manager) == 1
    assert json.loads((tmp_path / "p.json").read_text())["conflicts"] == {"Same": ["one 1.0", "two 1.0"]}
    assert "one 1.0, two 1.0: Same" in capsys.readouterr().out


def test_problems_name_the_distribution_and_exit_1(capsys):
    manager = plugin_manager(load_installed=False)
    manager.add("odd", "odd-package 3.1", lambda: module_plugin(carkp_comands=nothing))
    assert run(["plugins"], manager) == 1
    assert "odd-package 3.1" in capsys.readouterr().err
