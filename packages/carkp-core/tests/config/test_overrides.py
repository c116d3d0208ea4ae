from __future__ import annotations

import pytest

from carkp_core.config.overrides import apply_dotted, parse_overrides
from carkp_core.config.source import run_config
from carkp_core.errors import ConfigError

TEXT = """
import copy
loader = dict(batch_size=4, dataset=dict(path="a"), transforms=[dict(type="Flip", px=0.5)])
other = copy.deepcopy(loader)
other["batch_size"] = 16
trainer = dict(type="T", loader=loader, num_epochs=30)
compile_cfg = dict(opt="O2")
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(TEXT)
    return run_config(path, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("0.5", 0.5), ("None", None), ("(1, 2)", (1, 2)), ("some/path", "some/path"), ("a=b", "a=b")],
)
def test_values_are_literals_else_strings(text, value):
    assert parse_overrides([f"x={text}"]) == ({"x": value}, {})


@pytest.mark.parametrize("option", ["novalue", "a-b=1", "=3", "a..b=1"])
def test_malformed_options(option):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_overrides([option])


def test_dotted_key_reaches_shared_dicts_and_unchanged_copies(config):
    apply_dotted(config, {"trainer.loader.dataset.path": "b"})
    assert config["loader"]["dataset"]["path"] == "b"
    assert config["other"]["dataset"]["path"] == "b"


def test_a_copy_that_changed_the_key_keeps_its_own(config):
    apply_dotted(config, {"loader.batch_size": 8})
    assert config["trainer"]["loader"]["batch_size"] == 8
    assert config["other"]["batch_size"] == 16


def test_list_positions(config):
    apply_dotted(config, {"loader.transforms.0.px": 0.0})
    assert config["other"]["transforms"][0]["px"] == 0.0


def test_keys_that_a_recipe_leaves_out_may_be_set(config):
    apply_dotted(config, {"trainer.seed": 3, "compile_cfg.sram_bytes": 524288, "infer_cfg.type": "X"})
    assert config["trainer"]["seed"] == 3
    assert config["compile_cfg"]["sram_bytes"] == 524288
    assert config["infer_cfg"]["type"] == "X"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("trainr.num_epochs", "did you mean 'trainer'"),
        ("loader.batchsize", "did you mean 'batch_size'"),
        ("loader.transforms.7.px", "no such position"),
        ("trainer.num_epochs.x", "holds no keys"),
    ],
)
def test_wrong_paths_suggest(config, key, message):
    with pytest.raises(ConfigError, match=message):
        apply_dotted(config, {key: 1})
