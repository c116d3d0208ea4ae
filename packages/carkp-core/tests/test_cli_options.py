from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest

from carkp_core.cli_options import PicturePath, write_json


def test_plain_values_and_no_leftovers(tmp_path):
    path = tmp_path / "deep" / "r.json"
    write_json(
        path, {"a": np.float32(0.5), "b": [np.int64(3), (1,)], "c": float("nan"), "d": Path("x"), 1: {"e": None}}
    )
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [3, [1]], "c": None, "d": "x", "1": {"e": None}}
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


def test_no_path_writes_nothing(tmp_path):
    write_json(None, {"a": 1})
    assert not list(tmp_path.iterdir())


def test_a_picture_path_has_the_ending_of_a_picture():
    assert PicturePath().convert("a/b.PNG", None, None) == Path("a/b.PNG")
    with pytest.raises(click.BadParameter, match=r"'b.txt' has no ending of a picture: .png, .jpg, .jpeg"):
        PicturePath().convert("b.txt", None, None)
