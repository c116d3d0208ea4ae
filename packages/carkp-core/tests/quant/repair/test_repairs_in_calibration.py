"""Repairs as a calibration runs them: by name from a config, said, recorded, and whole in the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_networks import differing
from repair_nets import KeypointNet, images, lively, prepared
from train_toys import Near, SpotModel, make_context, spot_loader

from carkp_core.errors import QuantizationError
from carkp_core.plugins import plugin_manager
from carkp_core.quant.convert import convert
from carkp_core.quant.converters import Float2Calibration, Float2QAT
from carkp_core.quant.repair.equalize import CrossLayerEqualization
from carkp_core.train.calibrator import Calibrator
from carkp_core.train.callbacks.validation import Validation
from carkp_core.train.checkpoint import load_state, read_checkpoint

EXAMPLE = {"img": torch.zeros(1, 1, 8, 8)}


def built(*names: str, **arguments: Any) -> list[Any]:
    """Repairs by the names that configs use."""
    catalog = plugin_manager(load_installed=False).catalog()
    return [catalog[name].resolve()(**arguments.get(name, {})) for name in names]


def test_repairs_are_said_and_recorded_and_later_stages_start_from_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("CrossLayerEqualization", "Int16", "AdaRound", "BiasCorrection")
    repairs = built(*names, Int16={"outputs": True}, AdaRound={"iterations": 10, "worst": 1})
    torch.manual_seed(0)
    calibrator = Calibrator(
        SpotModel(dropout=0),
        data_loader=spot_loader(24, 4),
        num_steps=4,
        held_back=2,
        repairs=repairs,
        callbacks=[Validation(spot_loader(6))],
        val_metrics=[Near()],
        model_convert_pipeline=Float2Calibration(example_inputs=EXAMPLE),
        context=make_context(tmp_path, stage="calibration"),
    )
    metrics = calibrator.fit()
    said = capsys.readouterr().err
    (record,) = tmp_path.rglob("repairs.json")
    report = json.loads(record.read_text())
    assert [entry["repair"] for entry in report] == list(names)
    for entry in report:
        assert f"{entry['repair']}: {entry['summary']}" in said
    # A fresh network with the checkpoint's state is the very same one, for conversion and for QAT.
    payload = read_checkpoint(tmp_path / "calibration-checkpoint-best.pth.tar")
    digests = []
    for converter in (Float2Calibration(example_inputs=EXAMPLE), Float2QAT(example_inputs=EXAMPLE)):
        model: Any = converter(SpotModel(dropout=0))
        load_state(model, payload["model"], where="calibration")
        network = model.network.eval()
        assert network.repairs == report
        assert [network.layer(name).dtype for name in network.output_names] == ["int16"]
        digests.append(convert(network, "net").digest())
        x = next(iter(spot_loader(6)))["img"]
        assert differing(network, convert(network, "net"), x) == {}
    assert digests[0] == digests[1]
    assert metrics


def test_values_that_are_not_finite_are_named_before_weights_are_scaled() -> None:
    net = lively(KeypointNet(), 0)
    with torch.no_grad():
        net.blocks[1].expand[1].bias[0] = float("nan")  # type: ignore[index,union-attr]
    network = prepared(net)
    weights = network.layer("stem.0").weight.clone()  # type: ignore[union-attr,operator]
    with pytest.raises(QuantizationError, match="cannot be equalized") as caught:
        CrossLayerEqualization().before_calibration(network, [(images(2),)])
    assert (caught.value.where or "").startswith("blocks.1.expand.0")
    assert torch.equal(network.layer("stem.0").weight, weights)
