from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from carkp_core.commands.calops import calops
from carkp_core.plugins import plugin_manager

CONFIG = """
task_name = "tiny"
march = "bayes"
deploy_model = dict(type="torch.nn.Conv2d", in_channels=3, out_channels=8, kernel_size=3)
deploy_inputs = dict(img=dict(tensor=dict(type="torch.zeros", size=(1, 3, 10, 10))))
"""


def run(tmp_path: Path, *arguments: str, config: str = CONFIG) -> Result:
    path = tmp_path / "tiny.py"
    path.write_text(config)
    manager = plugin_manager(load_installed=False)
    return CliRunner().invoke(calops, ["--config", str(path), *arguments], obj=manager)


def test_it_prints_a_table_and_the_totals(tmp_path: Path) -> None:
    result = run(tmp_path, "--json", str(tmp_path / "ops.json"))
    assert result.exit_code == 0, result.output
    assert "Conv2d" in result.output
    assert result.output.splitlines()[-1] == "0.01 M MACs, 224 parameters"
    payload = json.loads((tmp_path / "ops.json").read_text())
    assert (payload["macs"], payload["params"]) == (8 * 8 * 8 * 27, 224)
    assert [row["path"] for row in payload["modules"]] == ["(root)"]


def test_calops_cfg_changes_the_input(tmp_path: Path) -> None:
    result = run(tmp_path, config=CONFIG + "calops_cfg = dict(method='hook', input_shape=(1, 3, 130, 130))\n")
    assert result.output.splitlines()[-1] == "3.54 M MACs, 224 parameters"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("calops_cfg = dict(input_size=(1, 3, 8, 8))", "calops_cfg has no key 'input_size'"),
        ("calops_cfg = dict(input_shape=(1, 3, 0, 8))", "is not a shape"),
        ("calops_cfg = dict(input_shape=(1, 4, 8, 8))", "does not run on the example input"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, line: str, message: str) -> None:
    result = run(tmp_path, config=CONFIG + line + "\n")
    assert result.exit_code != 0
    assert message in str(result.exception)
