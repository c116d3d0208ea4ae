"""Bad input to ``carkp train --stage calibration``: the layer's name and exit status 2, or a result that is safe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from calibration_toys import CONFIG, Model, Net, Silent
from torch.utils.data import DataLoader
from train_toys import make_context, spot_loader

from carkp_core.cli import run
from carkp_core.errors import DataError
from carkp_core.ir.binary import read
from carkp_core.ir.reference import execute
from carkp_core.plugins import plugin_manager
from carkp_core.quant.converters import Float2Calibration
from carkp_core.train.calibrator import Calibrator
from carkp_core.train.checkpoint import read_checkpoint

TOYS = Path(__file__).parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.py").write_text(CONFIG)
    return tmp_path


def train(stage: str, *opts: str) -> int:
    settings = [word for opt in opts for word in ("--opts", opt)]
    return run(["train", "--stage", stage, "--config", "toy.py", *settings], plugin_manager(load_installed=False))


def line_of(text: str) -> int:
    """The line of the network's source that holds a text."""
    lines = (TOYS / "calibration_toys.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize("observer", ["percentile", "min_max", "mix"])
@pytest.mark.parametrize(
    ("fault", "line", "seen", "remedy"),
    [
        ("NaN", "x.log()", "NaN in its output, calibration batch 1", "predict --stage float"),
        ("infinite", "x * x", "an infinite value in its output, calibration batch 1", "predict --stage float"),
        (
            "NaN weights", "self.middle(x)", "NaN in its output, and weights that are not finite, calibration batch 1",
            "load another checkpoint",
        ),
    ],
)  # fmt: skip
def test_values_that_are_not_finite_name_the_layer_that_made_them(
    fault: str, line: str, seen: str, remedy: str, observer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train("calibration", f"fault={fault}", f"observer={observer}") == 2
    said = capfd.readouterr().err
    assert (
        f"calibration_toys.py:{line_of(line)}{')' * (fault == 'NaN weights')}: the layer's scale cannot be calibrated"
        in said
    )
    assert f"seen: {seen}\n" in said
    assert remedy in said
    assert "Traceback" not in said
    assert not list(Path("models").glob("*.pth.tar"))


def test_a_pixel_that_is_none_names_the_input_and_the_batch(capfd: pytest.CaptureFixture[str]) -> None:
    assert train("calibration", "fault=NaN pixels") == 2
    said = capfd.readouterr().err
    assert "error: img: the layer's scale cannot be calibrated" in said
    assert "seen: NaN in the network input, calibration batch 3" in said
    assert "look at the calibration data and its transforms" in said


@pytest.mark.parametrize("opt", ["observer=mix", "repairs=[{'type': 'calibration_toys.Idle'}]"])
def test_held_back_batches_are_looked_at_before_anything_is_fitted_to_them(
    opt: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train("calibration", "fault=NaN pixels held back", opt) == 2
    assert "seen: NaN in the network input, held-back batch 2" in capfd.readouterr().err
    assert train("calibration", "fault=NaN pixels held back") == 0, "nobody reads them"
    assert train("calibration", "fault=size", opt) == 2
    assert "the calibration images have another size" in capfd.readouterr().err


@pytest.mark.parametrize("observer", ["percentile", "moving_average", "mse", "kl", "mix"])
def test_a_tensor_of_zeros_is_named_and_stays_zero_to_the_end(observer: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert train("calibration", "fault=zeros", f"observer={observer}") == 0
    said = capfd.readouterr().err
    assert "0 in every calibration batch, so any scale will do and they get 1 / qmax: middle" in said
    state = read_checkpoint(Path("models/calibration-checkpoint-best.pth.tar"))["model"]
    assert float(state["network.layers.middle.scale"]) == pytest.approx(1 / 127)
    records = json.loads(Path("models/runs/calibration-0/observers.json").read_text())
    assert {record["observer"] for record in records.values()} == {observer}
    assert records["middle"]["threshold"] == records["middle"]["low"] == records["middle"]["high"] == 0.0

    assert train("int_infer") == 0
    graph = read(Path("models/int_infer-checkpoint-best.ir"))
    image = torch.randint(-128, 128, graph.inputs[0].type.shape, dtype=torch.int8).numpy()
    (heatmap,) = execute(graph, {"img": image}).values()
    bias = Net("zeros").head.bias
    assert bias is not None
    step = graph.types()[graph.outputs[0]].scale
    assert heatmap.min() == heatmap.max()
    assert heatmap.max() * step == pytest.approx(bias.item(), abs=step)


def test_another_image_size_than_the_deployed_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert train("calibration", "fault=size") == 2
    said = capfd.readouterr().err
    assert "error: img: the calibration images have another size than the deployed network's input" in said
    assert "seen: 1 x 16 x 16" in said
    assert "allowed: 1 x 8 x 8" in said
    assert not list(Path("models").glob("*.pth.tar"))


def test_an_empty_data_set(capfd: pytest.CaptureFixture[str]) -> None:
    assert train("calibration", "count=0") == 2
    said = capfd.readouterr().err
    assert "calibration_trainer.data_loader" in said
    assert "a data set is too small for a single batch" in said
    assert "0 samples" in said


def test_a_sampler_that_brings_no_samples(tmp_path: Path) -> None:
    loader = DataLoader(spot_loader(12).dataset, batch_size=4, sampler=Silent())  # type: ignore[arg-type]
    calibrator = Calibrator(
        Model(),
        loader,
        num_steps=3,
        model_convert_pipeline=Float2Calibration(example_inputs={"img": torch.zeros(1, 1, 8, 8)}),
        context=make_context(tmp_path, stage="calibration"),
    )
    with pytest.raises(DataError, match="brings no samples") as caught:
        calibrator.fit()
    assert caught.value.where == "calibration_trainer.data_loader"


@pytest.mark.parametrize(
    ("stage", "converters", "allowed", "remedy"),
    [
        ("calibration", "before", "float", "behind Float2Calibration"),
        ("int_infer", "before", "float", "has no weights"),
        ("float", "behind", "calibration or qat", "before Float2Calibration"),
        ("int_infer", "behind", "calibration or qat", "the .ir beside it"),
    ],
)
def test_a_checkpoint_of_another_stage(
    stage: str, converters: str, allowed: str, remedy: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for made in ("float", "calibration", "int_infer"):
        assert train(made) == 0
    load, quantize = f"dict(type='LoadStage', stage={stage!r})", "dict(type='Float2Calibration')"
    order = [load, quantize] if converters == "before" else [quantize, load]
    changed = CONFIG.replace('converters=[dict(type="Float2Calibration")]', f"converters=[{', '.join(order)}]")
    assert changed != CONFIG
    Path("toy.py").write_text(changed)
    capfd.readouterr()
    assert train("calibration") == 2
    said = capfd.readouterr().err
    assert f"models/{stage}-checkpoint-best.pth.tar: a" in said
    assert "cannot load the checkpoint of this stage" in said
    assert f"seen: stage {stage}\n" in said
    assert f"allowed: {allowed}\n" in said
    assert remedy in said
