from __future__ import annotations

import pytest

from carkp_core.config.located import Origin
from carkp_core.config.source import run_config
from carkp_core.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "my_config.py"
    path.write_text(text)
    return path


def test_each_key_knows_its_line(tmp_path):
    path = write(tmp_path, 'lr = 0.1\nopt = dict(\n    type="SGD",\n    lr=lr,\n)\nmore = {"a": 1,\n  "b": 2}\n')
    config = run_config(path, {})
    assert config.origin("opt") == Origin(str(path), 2)
    assert config["opt"].origin("lr") == Origin(str(path), 4)
    assert config["more"].origin("b") == Origin(str(path), 7)
    assert config["opt"] == {"type": "SGD", "lr": 0.1}


def test_later_assignments_are_located(tmp_path):
    config = run_config(write(tmp_path, 'a = dict(x=1)\na["x"] = 2\n'), {})
    assert config["a"].origin("x").line == 2


def test_copies_keep_lines_and_lineage(tmp_path):
    config = run_config(
        write(tmp_path, "import copy\na = dict(x=dict(y=1))\nb = copy.deepcopy(a)\nc = dict(a, z=3)\n"), {}
    )
    assert config["b"]["x"].origin("y") == config["a"]["x"].origin("y")
    assert config["b"].lineage == config["a"].lineage == config["c"].lineage
    assert config["b"]["x"] is not config["a"]["x"]
    assert config["c"] == {"x": {"y": 1}, "z": 3}


def test_dict_merging_forms(tmp_path):
    text = 'a = dict(x=1)\nb = dict(**a, y=2)\nc = {**a, "y": 3}\nd = dict([("k", 1)])\ne = {1: 2}\n'
    config = run_config(write(tmp_path, text), {})
    assert config["b"] == {"x": 1, "y": 2}
    assert config["c"] == {"x": 1, "y": 3}
    assert config["d"] == {"k": 1}
    assert config["e"] == {1: 2}


def test_override_of_a_name_reaches_what_derives_from_it(tmp_path):
    path = write(tmp_path, 'root = "a"\npath = f"{root}/x"\nd = dict(p=path)\n')
    config = run_config(path, {"root": "b"})
    assert config["d"]["p"] == "b/x"
    assert str(config.origin("root")) == "--opts"


def test_override_leaves_locals_of_functions_alone(tmp_path):
    config = run_config(write(tmp_path, "n = 1\ndef f():\n    n = 5\n    return n\nm = f()\n"), {"n": 7})
    assert (config["n"], config["m"]) == (7, 5)


def test_override_of_an_unknown_name_suggests(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'data_root'"):
        run_config(write(tmp_path, 'data_root = "a"\n'), {"dataroot": "b"})


@pytest.mark.parametrize(
    ("text", "message"),
    [("a = (\n", "not valid Python"), ("a = 1\nb = nothing\n", r"my_config.py:2: the config raised NameError")],
)
def test_broken_files_say_where(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        run_config(write(tmp_path, text), {})


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        run_config(tmp_path / "none.py", {})


def test_settings_may_be_given_where_the_config_leaves_them_out(tmp_path):
    config = run_config(write(tmp_path, "a = 1\n"), {"seed": 3})
    assert config["seed"] == 3
    assert str(config.origin("seed")) == "--opts"


def test_an_override_that_the_config_cannot_work_with_is_shown(tmp_path):
    with pytest.raises(ConfigError, match="the config raised TypeError") as caught:
        run_config(write(tmp_path, "size = 64\nhalf = size // 2\n"), {"size": "big"})
    assert caught.value.seen == "--opts size='big'"


@pytest.mark.parametrize(
    "text", ["a, b = 1, 2\nc = b + 1\n", "(a, (b, _)) = 1, (2, 3)\nc = b + 1\n", "a = b = 2\nc = b + 1\n"]
)
def test_an_override_reaches_a_name_among_several_targets(tmp_path, text):
    config = run_config(write(tmp_path, text), {"b": 5})
    assert (config["b"], config["c"]) == (5, 6)
    assert config["a"] in (1, 2)
