"""Calibration and the integer stage, with tiny networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from train_toys import Near, SpotModel, Spots, make_context, spot_loader

from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.ir.binary import read, to_bytes
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.ir.operators import MaxPool
from carkp_core.quant.converters import Float2Calibration
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.observers import MinMax, Mix
from carkp_core.quant.repair.repair import InputBatch
from carkp_core.train.calibrator import Calibrator
from carkp_core.train.callbacks.validation import Validation
from carkp_core.train.checkpoint import read_checkpoint
from carkp_core.train.integer import IntegerTrainer


def quantized(model: Any) -> Any:
    """Convert as Float2Calibration does."""
    return Float2Calibration(example_inputs={"img": torch.zeros(1, 1, 8, 8)})(model)


def calibrator(folder: Path, **changes: Any) -> Calibrator:
    context = make_context(folder, stage="calibration")
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "data_loader": spot_loader(12, 4),
        "num_steps": 7,
        "callbacks": [Validation(spot_loader(6))],
        "val_metrics": [Near()],
        "model_convert_pipeline": quantized,
        "log_interval": 0.7,
    }
    return Calibrator(SpotModel(dropout=0), **(given | changes), context=context)


class Watch(MinMax):
    """Remembers all that were made, one for each tensor."""

    made: list[Watch]

    def __init__(self) -> None:
        super().__init__()
        Watch.made.append(self)


def watched(model: Any) -> Any:
    model = quantized(model)
    Watch.made = []
    model.network.default_observer = Watch
    return model


def test_it_observes_so_many_batches_and_saves_best_and_last(tmp_path: Path) -> None:
    trainer = calibrator(tmp_path, model_convert_pipeline=watched)
    metrics = trainer.fit()
    assert {watch.batches for watch in Watch.made} == {7}, "three batches an epoch, so the data is gone through again"
    assert sorted(metrics) == ["dist", "near"]
    best, last = (read_checkpoint(trainer.context.checkpoint("calibration", which)) for which in ("best", "last"))
    assert best["model"]["network.inputs.img.scale"] == last["model"]["network.inputs.img.scale"] > 0
    assert best["stage"] == "calibration"


class Witness:
    """A repair that changes nothing and remembers what it saw."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def before_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        self.log.append(("before", [float(layer.scale) for _, layer in network.scaled_layers()]))
        self.batches_before = batches

    def after_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        self.log.append(("after", [float(layer.scale) for _, layer in network.scaled_layers()]))
        self.batches = batches
        self.outputs = [network(*batch) for batch in batches]


class Numbered(Spots):
    """Each sample has its index in the corner."""

    def replay(self, index: int, epoch: int) -> dict[str, Any]:
        sample = super().replay(index, epoch)
        sample["img"][0, 0, 0] = index
        return sample


class Kept(Watch):
    """Keeps the network's inputs."""

    def update(self, values: Tensor) -> None:
        super().update(values)
        if values.shape[1:] == (1, 8, 8):
            Kept.inputs.append(values)

    inputs: list[Tensor]


def keeping(model: Any) -> Any:
    Kept.inputs = []
    model = watched(model)
    model.network.default_observer = Kept
    return model


def test_repairs_run_around_the_observers_on_batches_that_were_held_back(tmp_path: Path) -> None:
    first, second = Witness(), Witness()
    calibrator(
        tmp_path,
        data_loader=DataLoader(Numbered(40), batch_size=4, shuffle=True),
        num_steps=20,
        held_back=2,
        repairs=[first, second],
        model_convert_pipeline=keeping,
    ).fit()
    for witness in (first, second):
        assert [when for when, _ in witness.log] == ["before", "after"]
        assert not any(witness.log[0][1]), "no scale is known before"
        assert all(witness.log[1][1])
        assert [tuple(image.shape) for (image,) in witness.batches] == [(4, 1, 8, 8)] * 2
        assert all(a is b for a, b in zip(witness.batches_before, witness.batches, strict=True))
        assert all(torch.isfinite(output).all() for output in witness.outputs)
    observed = {int(image[0, 0, 0]) for batch in Kept.inputs for image in batch}
    held = {int(image[0, 0, 0]) for (batch,) in first.batches for image in batch}
    assert len(Kept.inputs) == 20
    assert len({image.numpy().tobytes() for batch in Kept.inputs for image in batch}) == 80, "epochs differ in noise"
    assert (len(held), len(observed)) == (8, 32)
    assert not held & observed


@pytest.mark.parametrize(("samples", "shapes"), [(7, [(7, 1, 8, 8)]), (8, [(2, 1, 8, 8)])])
def test_data_too_small_to_hold_any_back_serves_for_both_and_that_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], samples: int, shapes: list[tuple[int, ...]]
) -> None:
    witness = Witness()
    calibrator(tmp_path, data_loader=spot_loader(samples, samples), num_steps=2, repairs=[witness]).fit()
    assert [tuple(image.shape) for (image,) in witness.batches] == shapes
    assert ("too little calibration data to hold any back" in capfd.readouterr().err) == (samples < 8)


def test_mix_chooses_on_held_back_batches_and_writes_down_every_candidate(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def mixed(model: Any) -> Any:
        model = quantized(model)
        model.network.default_observer = Mix
        return model

    trainer = calibrator(tmp_path, data_loader=spot_loader(40, 4), model_convert_pipeline=mixed)
    trainer.fit()
    said = capfd.readouterr().err
    path = tmp_path / "runs" / "calibration-0" / "observers.json"
    assert f"(all candidates: {path})" in said
    written = json.loads(path.read_text())
    kept = read_checkpoint(trainer.context.checkpoint("calibration"))["model"]["network._extra_state"]
    assert {name: {"where": written[name]["where"], **record} for name, record in kept["observer_choices"].items()} == (
        written
    )
    chosen = [record["choice"] for record in written.values() if record.get("errors")]
    assert len(chosen) >= 2
    for choice in set(chosen):
        assert f"{choice} {chosen.count(choice)}" in said
    for record in written.values():
        assert set(record["errors"]) <= set(record["thresholds"])


@pytest.mark.parametrize("held_back", [-1, 0.5])
def test_an_impossible_number_of_batches_to_hold_back(tmp_path: Path, held_back: float) -> None:
    with pytest.raises(ConfigError, match="held_back"):
        calibrator(tmp_path, held_back=held_back)


def test_what_is_no_repair_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Validation is no repair"):
        calibrator(tmp_path, repairs=[Witness(), Validation(spot_loader(6))])


def test_a_model_without_observers(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="no observers") as error:
        calibrator(tmp_path, model_convert_pipeline=None).fit()
    assert "Float2Calibration" in str(error.value.remedy)
    assert not list(tmp_path.glob("*.pth.tar"))


def test_no_steps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_steps"):
        calibrator(tmp_path, num_steps=0)


def test_the_integer_stage_writes_the_graph_beside_both_checkpoints(tmp_path: Path) -> None:
    context = make_context(tmp_path, stage="int_infer")
    kind = TensorType((1, 1, 8, 8), "int8", 1.0)
    pooled = Node("y", MaxPool((2, 2), (2, 2)), ("x",), TensorType((1, 1, 4, 4), "int8", 1.0))
    graph = Graph("toy", (GraphInput("x", kind),), (pooled,), ("y",))

    def convert(model: Any) -> Any:
        model.network.graph = graph
        return model

    callbacks = [Validation(spot_loader(6))]
    metrics = IntegerTrainer(SpotModel(), convert, callbacks=callbacks, val_metrics=[Near()], context=context).fit()
    assert sorted(metrics) == ["dist", "near"]
    for which in ("best", "last"):
        assert to_bytes(read(context.graph_path(which))) == to_bytes(graph)
        assert context.checkpoint("int_infer", which).exists()
