"""What holds across rooms: one answer in every form of the model, and errors that say what to do."""

from __future__ import annotations

import shutil
from importlib import resources

import numpy as np
import pytest
import torch

from carkp_core.cli import run
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.session import open_session


@pytest.fixture
def folder(workflow, monkeypatch):
    """The tutorial's folder as the working directory."""
    monkeypatch.chdir(workflow.dir)
    return workflow.dir


@pytest.fixture
def refused(capfd):
    """Run a command that must end with status 2 and no traceback; returns what it said."""

    def call(*args: str) -> str:
        assert run([*args]) == 2
        said = capfd.readouterr().err
        assert "Traceback" not in said
        return " ".join(said.split())

    return call


def images(session):
    """Validation images as the network gets them, float [4, 3, H, W]."""
    dataset = session.recipe(session.config["val_data_loader"]["dataset"], "val_data_loader.dataset").build()
    return torch.stack([dataset[index]["img"] for index in range(4)])


@pytest.mark.usefixtures("folder")
def test_every_form_of_the_model_gives_the_same_heatmaps(workflow):
    """Calibrated network, integer model on reference executor and simulator, program on the machine: one answer."""
    session = open_session(workflow.config, workflow.settings)
    x = images(session)
    calibrated = session.for_stage("calibration").predictor("calibration")
    network = calibrated.model_convert_pipeline(calibrated.model).network.eval()
    with torch.no_grad():
        expected = network(x).numpy()
    graph, backend = session.integer_graph(), session.context.backend()
    (declared,), (name,) = graph.inputs, graph.outputs
    integers = {declared.name: quantize(x.numpy(), declared.type.scale, declared.type.dtype)}
    program = backend.load_program(session.compile_options().hbm)
    answers = {
        "reference": reference.execute(graph, integers)[name],
        "graph simulator": backend.simulate(graph)(integers)[name],
        "machine simulator": backend.run_program(program, integers)[name],
    }
    scale = np.float32(graph.types()[name].scale)
    differing = {way: int((got.astype(np.float32) * scale != expected).sum()) for way, got in answers.items()}
    assert differing == dict.fromkeys(answers, 0)
    assert np.ptp(expected) > 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("args", "first"),
    [
        (("train", "--stage", "calibration"), "--stage float"),
        (("train", "--stage", "int_infer"), "--stage calibration"),
        (("predict", "--stage", "float"), "--stage float"),
        (("predict", "--stage", "int_infer"), "--stage int_infer"),
        (("compile-perf",), "--stage int_infer"),
        (("align-bpu-validation",), "--stage int_infer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_step_out_of_order_names_the_one_that_comes_first(args, first, refused, tmp_path, workflow):
    said = refused(*args, "--config", workflow.config, *workflow.options, "--opts", f"ckpt_dir={tmp_path}")
    assert first in said
    assert str(tmp_path) in said


def test_a_missing_data_set_names_its_place_and_the_command_that_packs_it(refused, tmp_path, monkeypatch, workflow):
    monkeypatch.chdir(tmp_path)
    said = refused(
        "train", "--stage", "float", "--config", workflow.config, *workflow.options, "--opts", "data_root=nowhere"
    )
    assert "nowhere/train_lmdb" in said
    assert "carfusion-packer" in said


@pytest.fixture
def own_config(tmp_path, monkeypatch, workflow):
    """Writes a changed copy of the shipped config to ``my_config.py``."""
    monkeypatch.chdir(tmp_path)

    def write(old: str, new: str) -> str:
        text = resources.files("carkp_carfusion").joinpath(f"configs/{workflow.config}.py").read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "my_config.py").write_text(text.replace(old, new), encoding="utf-8")
        return "my_config.py"

    return write


def test_a_misspelt_key_is_met_with_its_line_and_the_likely_word(own_config, refused):
    name = own_config("lr=0.001,", "lrr=0.001,")
    said = refused("train", "--stage", "float", "--config", name)
    assert "has no argument 'lrr'; did you mean 'lr'?" in said
    assert "float_trainer.optimizer" in said
    assert "my_config.py:" in said


def test_an_unknown_type_is_met_with_the_likely_name(own_config, refused):
    name = own_config('type="efficientnet"', 'type="efficientnett"')
    said = refused("train", "--stage", "float", "--config", name)
    assert "unknown type 'efficientnett'; did you mean 'efficientnet'?" in said
    assert "my_config.py:" in said


@pytest.mark.usefixtures("folder")
def test_a_checkpoint_of_another_network_names_what_differs(refused, tmp_path, workflow):
    shutil.copy(workflow.models / "float-checkpoint-best.pth.tar", tmp_path)
    wider = "model.decode_head.num_deconv_filters=[64,64,64]"
    options = [*workflow.options, "--opts", f"ckpt_dir={tmp_path}", "--opts", wider]
    said = refused("predict", "--stage", "float", "--config", workflow.config, *options)
    assert "float-checkpoint-best.pth.tar" in said
    assert "decode_head.layers" in said


@pytest.mark.usefixtures("folder")
def test_an_integer_model_for_another_march_is_refused_with_both_names(refused, workflow):
    said = refused("compile-perf", "--config", workflow.config, *workflow.options, "--march", "nash-e")
    assert "'bayes'" in said
    assert "'nash-e'" in said


def test_an_unknown_march_lists_those_that_exist(refused, workflow):
    said = refused("model-checker", "--config", workflow.config, "--march", "bayess")
    assert "no installed package offers march 'bayess'" in said
    assert "bernoulli2" in said
