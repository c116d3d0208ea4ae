"""``carkp infer`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from npu_toys import toy_graph, toy_plugins, write_config

from carkp_core.cli import run


def test_the_tutorials_words(tmp_path: Path, capsys) -> None:
    config = write_config(tmp_path, toy_graph())
    np.save(tmp_path / "spot.npy", np.full((8, 8, 3), 30, np.uint8))
    arguments = ["infer", "--config", str(config), "--model-inputs", f"img:{tmp_path / 'spot.npy'}"]
    arguments += ["--save-path", str(tmp_path / "saved"), "--json", str(tmp_path / "result.json")]
    assert run(arguments, toy_plugins()) == 0
    assert "1 drawn with int_infer" in capsys.readouterr().out
    payload = json.loads((tmp_path / "result.json").read_text())
    assert payload["stage"] == "int_infer"
    assert Path(payload["images"][0]["picture"]).exists()


def test_a_missing_image_exits_2(tmp_path: Path, capsys) -> None:
    config = write_config(tmp_path, toy_graph())
    arguments = ["infer", "--config", str(config), "--model-inputs", "img:nowhere.npy", "--save-path", str(tmp_path)]
    assert run(arguments, toy_plugins()) == 2
    assert "nowhere.npy" in capsys.readouterr().err
