"""Layers in float and in integers side by side: nothing but what was asked for changes."""

from __future__ import annotations

import pytest
import torch
from exact_networks import calibrated
from sensitive_nets import DepthwiseNet, healthy, images
from torch import nn

from carkp_core.quant.exact import QTensor
from carkp_core.quant.network import Step
from carkp_core.quant.prepare import prepare
from carkp_core.quant.sensitivity.mixed import MixedNetwork, as_float
from carkp_core.quant.settings import quant_settings


def step_of(mixed: MixedNetwork, name: str) -> tuple[int, Step]:
    return next((index, step) for index, step in enumerate(mixed.steps) if step.name == name)


def test_all_in_integers_is_the_quantized_network_bit_for_bit() -> None:
    network, x = healthy(), images(5, seed=1) * 1.4
    mixed = MixedNetwork(network)
    _, integers = mixed.inputs([x])
    with torch.no_grad():
        found = mixed.finish(0, integers, integers=True)
        expected = network.integer_values([x])
    assert list(found) == list(network.output_names)
    for name, value in found.items():
        assert torch.equal(value, as_float(expected[name]))


def test_all_in_float_is_the_float_network() -> None:
    network, x = healthy(), images(5, seed=1)
    mixed = MixedNetwork(network)
    floats, _ = mixed.inputs([x])
    with torch.no_grad():
        found = mixed.finish(0, floats, integers=False)
        expected = network.float_values([x])
    for name, value in found.items():
        assert torch.equal(value, expected[name])


def test_with_integer_weights_is_what_the_integers_stand_for() -> None:
    network, x = healthy(), images(2)
    mixed = MixedNetwork(network)
    _, step = step_of(mixed, "stem")
    layer = network.layer("stem")
    constants = layer.integers(1 / 128, "int8", None)  # type: ignore[attr-defined]
    weight = constants.weight.double() * constants.scale_w[:, None]
    expected = nn.functional.conv2d(
        x.double(), weight.reshape(16, 3, 3, 3), constants.bias * constants.scale_acc, padding=1
    ).relu()
    found = mixed.with_integer_weights(step, {"img": x})
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found, mixed.in_float(step, {"img": x}))


def test_after_a_float_a_layer_rounds_to_its_own_steps() -> None:
    mixed, x = MixedNetwork(healthy()), images(4)
    _, stem = step_of(mixed, "stem")
    _, depthwise = step_of(mixed, "depthwise")
    _, integers = mixed.inputs([x])
    with torch.no_grad():
        integers["stem"] = mixed.in_float(stem, integers)
        made = mixed.in_integers(depthwise, integers)
        integers["stem"] = mixed.in_integers(stem, mixed.inputs([x])[1])
        exact = mixed.in_integers(depthwise, integers)
    assert isinstance(made, QTensor)
    assert isinstance(exact, QTensor)
    assert torch.equal(made.values, made.values.round())
    assert made.scale == exact.scale
    assert 0 < float((made.values - exact.values).abs().max()) <= 3


def test_a_move_between_floats_stays_float() -> None:
    mixed = MixedNetwork(healthy())
    name = next(step.name for step in mixed.steps if not mixed.rounds(step))
    _, step = step_of(mixed, name)
    x = torch.randn(2, 16, 8, 8)
    found = mixed.in_integers(step, {step.inputs[0]: x})
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, nn.functional.max_pool2d(x, 2))


def test_what_rounds() -> None:
    mixed = MixedNetwork(healthy())
    moves = [step.name for step in mixed.steps if not mixed.rounds(step)]
    assert len(moves) == 1
    assert "max_pool" in moves[0]
    weights = [step.name for step in mixed.steps if mixed.has_weights(step)]
    assert weights == ["stem", "depthwise", "project", "depthwise2", "project2", "head"]


def test_batch_norm_beside_the_weights_is_folded_into_the_copy() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    with torch.no_grad():
        net[1].running_mean.normal_()  # type: ignore[union-attr,operator]
        net[1].running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr,operator]
    x = images(4)
    network = prepare(net, {"img": x[:1]}, settings=quant_settings("with_bn")).eval()
    network.start_observing()
    network(x)
    network.finish_observing()
    mixed = MixedNetwork(network)
    (step,) = mixed.steps
    with torch.no_grad():
        near, exact = mixed.with_integer_weights(step, {"img": x}), net(x)
    assert 0 < float((near - exact).abs().max()) < 0.05 * float(exact.abs().max())
    assert network.layer(step.name).bn is not None  # type: ignore[attr-defined]


def test_learned_scales_are_those_of_the_integers() -> None:
    network, x = healthy(), images(5, seed=1)
    network.learn_scales()
    network.learn_scales(weights=True)
    network.train()(x)
    network.eval()
    with torch.no_grad():
        scales = [value for name, value in network.named_parameters() if name.endswith("scale")]
        assert len(scales) == 8 + 6 - 1, "of activations and weights, but not the input's"
        for value in scales:
            value.mul_(1.25)
        mixed = MixedNetwork(network)
        found = mixed.finish(0, mixed.inputs([x])[1], integers=True)
        expected = network.integer_values([x])
        near = mixed.finish(0, mixed.inputs([x])[0], integers=False)
    for name, value in found.items():
        assert torch.equal(value, as_float(expected[name]))
        assert 0 < float((value - near[name]).abs().max()) < 0.5
    assert all(isinstance(kind.scale, float) for kind in mixed.kinds.values())


@pytest.mark.parametrize("name", ["stem", "project"])
def test_int16_results_are_rounded_finer(name: str) -> None:
    x = images()
    mixed = MixedNetwork(calibrated(DepthwiseNet(), x, {name: "int16"}, input_scales={"img": 1 / 128}))
    assert mixed.kinds[name].dtype == "int16"
    values = torch.rand(64)
    wide = as_float(mixed.rounded(name, values))
    assert float((wide - values).abs().max()) <= mixed.kinds[name].scale / 2 * 1.01
