from __future__ import annotations

import json

import attrs
import pytest
import torch

from carkp_core.errors import CheckpointError, ConfigError
from carkp_core.plugins import plugin_manager
from carkp_core.session import open_session

TEXT = """
import torch
width = 4
model = dict(type=torch.nn.Conv2d, in_channels=3, out_channels=width, kernel_size=1)
val_data_loader = dict(
    dataset=dict(transforms=[dict(type="Resize", img_scale=(8, 16)), dict(type="Normalize", mean=128.0, std=128.0)])
)
"""


@pytest.fixture
def open_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def opened(text=TEXT, *opts, **kwargs):
        (tmp_path / "net.py").write_text(text)
        return open_session("net.py", opts, plugins=plugin_manager(load_installed=False), **kwargs)

    return opened


def test_defaults(open_text):
    context = open_text().context
    assert (context.task, context.march, context.seed) == ("net", "bayes", 0)
    assert str(context.ckpt_dir) == "tmp_models/net"
    assert context.input_scales == {"img": 1 / 128}


def test_deploy_builds_the_network_and_its_example(open_text):
    network, inputs = open_text(TEXT, "width=6").deploy()
    assert network(inputs["img"]).shape == (1, 6, 8, 16)
    assert not network.training


@pytest.mark.parametrize("given", ["(1, 3, 4, 6)", "dict(shape=[1, 3, 4, 6], scale=0.25)"])
def test_an_example_may_be_given_by_its_shape(open_text, given):
    session = open_text(TEXT + f"deploy_inputs = dict(img={given})\n")
    assert torch.equal(session.deploy_inputs()["img"], torch.zeros(1, 3, 4, 6))


@pytest.mark.parametrize("given", ["'224'", "(1, 3, 0, 4)", "dict(scale=0.5)", "None", "()"])
def test_an_example_of_another_kind_names_its_line(open_text, given):
    session = open_text(TEXT + f"deploy_inputs = dict(img={given})\n")
    with pytest.raises(ConfigError, match=r"deploy_inputs\.img \(.*:\d+\): an example input is a tensor or a shape"):
        session.deploy_inputs()


def test_given_deploy_inputs_win(open_text):
    text = TEXT + "deploy_inputs = dict(img=dict(tensor=torch.ones(1, 3, 4, 4), scale=0.5))\n"
    session = open_text(text)
    assert session.deploy_inputs()["img"].shape == (1, 3, 4, 4)
    assert session.context.input_scales == {"img": 0.5}
    assert torch.equal(session.context.example_inputs()["img"], torch.ones(1, 3, 4, 4))


def test_unknown_input_size_says_what_would_tell(open_text):
    with pytest.raises(ConfigError, match="input size is not known"):
        open_text("import torch\nmodel = dict(type=torch.nn.Identity)\n").deploy()


def test_march_option_wins_and_conflicts_are_named(open_text):
    text = TEXT + 'march = "nash-e"\ncompile_cfg = dict(march="nash-m")\n'
    assert open_text(text, march="bayes").context.march == "bayes"
    with pytest.raises(ConfigError, match=r"march and compile_cfg\.march"):
        open_text(text)


def test_compile_options_are_completed(open_text):
    options = open_text(TEXT, "compile_cfg.sram_bytes=4096").compile_options(opt="O1")
    assert options.sram_bytes == 4096
    assert options.opt == "O1"
    assert options.name == "net"
    assert str(options.hbm) == "tmp_models/net/compile/model.hbm"
    assert options.out_dir == options.hbm.parent


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compile_cfg.sram_byte=1", "has no key 'sram_byte'"),
        ("compile_cfg.opt=O9", "opt is not known"),
        ("compile_cfg.sram_bytes=-1", "positive whole number"),
    ],
)
def test_wrong_compile_options(open_text, override, message):
    with pytest.raises(ConfigError, match=message):
        open_text(TEXT, override).compile_options()


def test_everything_is_checked_when_a_session_opens(open_text):
    with pytest.raises(ConfigError, match=r"model: Conv2d has no argument 'kernel'; did you mean 'kernel_size'"):
        open_text(TEXT.replace("kernel_size", "kernel"))


def test_a_part_that_the_config_lacks_is_named(open_text):
    with pytest.raises(ConfigError, match="has no 'float_trainer'"):
        open_text().trainer("float")


def test_a_missing_integer_model_says_which_command_makes_it(open_text):
    with pytest.raises(CheckpointError, match="train --stage int_infer"):
        open_text().integer_graph()


def test_for_stage_changes_the_stage_alone(open_text):
    session = open_text()
    other = session.for_stage("float")
    assert other.context.stage == "float"
    assert attrs.evolve(other.context, stage="").ckpt_dir == session.context.ckpt_dir


def test_run_records(open_text):
    from carkp_core.runs import Run

    context = open_text(TEXT, "seed=7", stage="float").context
    first, second = Run.open(context), Run.open(context)
    assert (first.dir.name, second.dir.name) == ("float-0", "float-1")
    assert "width = 4" in (first.dir / "config.txt").read_text()
    facts = json.loads((first.dir / "run.json").read_text())
    assert facts["seed"] == 7
    assert {"python", "torch", "numpy", "carkp-core"} <= set(facts["versions"])
    first.discard_unused()
    assert not first.dir.exists()
    first = Run.open(context)
    first.log_metrics({"epoch": 0, "loss": float("nan")})
    assert json.loads((first.dir / "metrics.jsonl").read_text()) == {"epoch": 0, "loss": None}
    first.discard_unused()
    assert first.dir.exists(), "a run that did something keeps its record"


def test_threads_stay_with_the_session_from_stage_to_stage(open_text):
    assert open_text().context.threads is None
    assert open_text(threads=3).for_stage("int_infer").context.threads == 3
