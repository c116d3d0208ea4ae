"""The Python of config.md is a sound config, and the error that it shows is the error that one gets."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from carkp_core.cli import run
from carkp_core.session import open_session
from carkp_core.stages import ROOTS


@pytest.fixture
def config_file(docs_page, tmp_path, monkeypatch):
    """The page's blocks, one after the other, as a config."""
    blocks = docs_page("config.md").blocks("python")
    assert blocks
    path = tmp_path / "my_config.py"
    path.write_text("\n".join(block.text for block in blocks), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return path


def test_the_blocks_are_a_sound_config(config_file):
    session = open_session(str(config_file))
    assert session.config["model"]["type"] == "HeatmapKeypointModel"


def test_the_table_has_every_name_that_carkp_builds(docs_page):
    """Predictors stand in one row, as ``<stage>_predictor``."""
    text = docs_page("config.md").text
    missing = [name for name in ROOTS if f"`{name}`" not in text and not name.endswith("_predictor")]
    assert missing == []
    assert "`<stage>_predictor`" in text


def test_the_error_shown_is_the_error_met(docs_page, tmp_path, monkeypatch, capsys):
    shown = re.search(r"```text\n(error: .*?)```", docs_page("config.md").text, re.DOTALL)
    assert shown is not None
    monkeypatch.chdir(tmp_path)
    shipped = resources.files("carkp_carfusion").joinpath("configs/keypoint_efficientnetb0_carfusion.py")
    text = shipped.read_text(encoding="utf-8").replace("lr=0.001,", "lrr=0.001,")
    (tmp_path / "my_config.py").write_text(text, encoding="utf-8")
    assert run(["config", "check", "my_config.py"]) == 2
    met = capsys.readouterr().err
    for line in shown[1].splitlines():
        pattern = re.sub(r":\d+", r":\\d+", re.escape(line)).replace(r"\.\.\.", ".*")
        assert re.search(f"^{pattern}$", met, re.MULTILINE), met
