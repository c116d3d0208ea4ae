from __future__ import annotations

import json

import pytest

from carkp_core.cli import run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_copies_and_refuses_to_overwrite(here, capsys):
    assert run(["config", "init", "quickstart"]) == 0
    assert (here / "quickstart.py").exists()
    assert run(["config", "init", "quickstart"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_show_says_where_values_come_from(here, capsys):
    (here / "c.py").write_text('root = "a"\nd = dict(x=root)\n')
    assert run(["config", "show", "c.py", "--opts", "root=b", "--json", "c.json"]) == 0
    assert "root = 'b'  # --opts" in capsys.readouterr().out
    assert json.loads((here / "c.json").read_text())["values"] == {"root": "b", "d": {"x": "b"}}


def test_check_finds_a_misspelt_key(here, capsys):
    (here / "c.py").write_text("import torch\nmodel = dict(\n    type=torch.nn.ReLU,\n    inplac=True,\n)\n")
    assert run(["config", "check", "c.py"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'inplace'? (c.py:4)" in error


def test_check_of_a_shipped_config(capsys):
    assert run(["config", "check", "keypoint_efficientnetb0_carfusion"]) == 0
    assert "stages float, calibration, qat, int_infer" in capsys.readouterr().out
