"""The converters of a ModelConvertPipeline, with a real context."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor, fx, nn

from carkp_core.catalog import Catalog
from carkp_core.context import Context
from carkp_core.errors import CheckpointError, ConfigError, QuantizationError
from carkp_core.ir import binary
from carkp_core.operator import Operator
from carkp_core.plugins import module_plugin, plugin_manager
from carkp_core.quant.converters import Float2Calibration, Float2QAT, LoadIntegerModel, QAT2Quantize
from carkp_core.quant.integer_network import IntegerNetwork
from carkp_core.quant.layer import Layer
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.observers import Mse, Percentile
from carkp_core.quant.operators import Call, OperatorDefinition
from carkp_core.quant.ops.table import Table
from carkp_core.quant.prepare import prepare

torch.set_num_threads(1)


def make_context(folder: Path, **changes: Any) -> Context:
    manager = plugin_manager(load_installed=False)
    context = Context(
        plugins=manager,
        catalog=Catalog(()),
        backends=(),
        march="bayes",
        task="tiny",
        ckpt_dir=folder,
        input_scales={"img": 1 / 128},
        example_inputs=lambda: {"img": torch.zeros(1, 3, 8, 8)},
    )
    return evolve(context, **changes)


class Model(nn.Module):
    """A task model: its ``network`` is what is deployed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        return self.network(data["img"])


def images() -> Tensor:
    return torch.randint(-128, 128, (4, 3, 8, 8), generator=torch.Generator().manual_seed(1)).float() / 128


def calibrated(context: Context) -> nn.Module:
    converter = Float2Calibration(convert_mode="fx", context=context)
    converter.configure(qat_mode="fuse_bn", qconfig_params={"activation_calibration_observer": "percentile"})
    model = converter(Model().eval())
    model.network.start_observing()
    model({"img": images()})
    model.network.finish_observing()
    return model


def test_the_tutorials_chain_gives_one_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    context = make_context(tmp_path)
    model = calibrated(context)
    assert isinstance(model.network, QuantizedNetwork)
    expected = model({"img": images()})
    with caplog.at_level(logging.WARNING):
        model = QAT2Quantize(convert_mode="fx", context=context)(model)
    assert "reference executor" in caplog.text
    assert isinstance(model.network, IntegerNetwork)
    assert torch.equal(model({"img": images()}), expected)
    assert model.network.graph.metadata["march"] == "bayes"
    assert model.network.graph.inputs[0].type.scale == 1 / 128
    binary.write(model.network.graph, context.graph_path())
    loaded = LoadIntegerModel(context=context)(Model())
    assert torch.equal(loaded({"img": images()}), expected)
    with pytest.raises(CheckpointError, match=r"for march 'bayes', not for 'nash-e'"):
        LoadIntegerModel(context=evolve(context, march="nash-e"))(Model())


def test_the_observer_is_the_one_that_the_config_names(tmp_path: Path) -> None:
    converter = Float2Calibration(context=make_context(tmp_path))
    params = {"activation_calibration_observer": "mse", "activation_calibration_qkwargs": {"candidates": 20}}
    converter.configure(qconfig_params=params)
    network = converter(Model().eval()).network
    network.start_observing()
    assert all(isinstance(observer, Mse) for observer in network.observers().values())
    plain = Float2Calibration(context=make_context(tmp_path))(Model().eval()).network
    plain.start_observing()
    assert all(isinstance(observer, Percentile) for observer in plain.observers().values())
    assert "img" not in plain.observers()


def test_qat_keeps_a_calibrated_network_and_prepares_a_float_one(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    model = calibrated(context)
    network = model.network
    assert Float2QAT(context=context)(model).network is network
    fresh = Float2QAT(qat_mode="with_bn", context=context)(Model())
    fresh({"img": images()}).square().mean().backward()
    assert any("bn" in key for key in fresh.network.state_dict())


def test_a_whole_model_without_network_is_replaced(tmp_path: Path) -> None:
    converter = Float2Calibration(context=make_context(tmp_path))
    assert isinstance(converter(nn.Conv2d(3, 2, 1)), QuantizedNetwork)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"qat_mode": "fold_bn"}, r"fuse_bn, with_bn, with_bn_reverse_fold"),
        (
            {"qconfig_params": {"activation_calibration_observers": "mse"}},
            r"did you mean 'activation_calibration_observer'",
        ),
        ({"qconfig_params": {"weight_calibration_observer": "mse"}}, r"weights cannot have the observer"),
    ],
)
def test_unknown_settings_list_what_is_known(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Float2Calibration().configure(**settings)


def test_unknown_observers_and_arguments_are_named(tmp_path: Path) -> None:
    converter = Float2Calibration(context=make_context(tmp_path))
    converter.configure(qconfig_params={"activation_calibration_observer": "percentil"})
    with pytest.raises(ConfigError, match="did you mean 'percentile'"):
        converter(Model())
    converter.configure(qconfig_params={"activation_calibration_qkwargs": {"percent": 99}})
    with pytest.raises(ConfigError, match="observer 'percentile' cannot be made"):
        converter(Model())


def test_misuse_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown convert_mode"):
        Float2Calibration(convert_mode="eager")
    with pytest.raises(QuantizationError, match="needs an example input"):
        Float2Calibration()(Model())
    with pytest.raises(QuantizationError, match="needs a calibrated or trained"):
        QAT2Quantize(context=make_context(tmp_path))(Model())
    with pytest.raises(CheckpointError, match="no integer model yet"):
        LoadIntegerModel(context=make_context(tmp_path))(Model())


class Bump(nn.Module):
    """An activation that core does not know as such."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.exp(-x * x)


def bump(x: Tensor) -> Tensor:
    return x * torch.exp(-x * x)


def lower_bump(call: Call) -> fx.Node:
    layer: Layer = Table(bump, "bump")
    return call.emit(layer, call.args["input"])


BUMP = OperatorDefinition("bump", lower_bump, modules=(Bump,), parameters=("input",))


def test_a_plugins_operator_takes_a_whole_module(tmp_path: Path) -> None:
    plugin = module_plugin(carkp_operators=lambda: [Operator("bump", f"{__name__}:BUMP")])
    manager = plugin_manager(load_installed=False)
    manager.register(plugin, "bump")
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Bump()).eval()
    x = torch.randn(1, 3, 4, 4)
    with_plugin = prepare(net, {"img": x}, context=make_context(tmp_path, plugins=manager))
    without = prepare(net, {"img": x}, context=make_context(tmp_path))
    assert [type(with_plugin.layer(s.name)).kind for s in with_plugin.steps] == ["conv2d", "table"]
    assert len(without.steps) == 5
