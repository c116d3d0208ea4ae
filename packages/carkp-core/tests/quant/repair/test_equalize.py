"""Equalization keeps the float function and recovers channels that were scaled on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact_networks import differing
from hypothesis import given, settings
from hypothesis import strategies as st
from repair_nets import (
    Everywhere,
    KeypointNet,
    break_channels,
    calibrate,
    float_outputs,
    images,
    lively,
    noise_share,
    prepared,
)
from torch import nn

from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.quant.convert import convert
from carkp_core.quant.layer import Bounds
from carkp_core.quant.repair.equalize import CRITERIA, CrossLayerEqualization, equalize_alike


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), by=st.sampled_from(CRITERIA))
def test_the_float_function_stays_and_integers_are_exact(seed: int, by: str) -> None:
    x = images(4, seed=seed)
    network = prepared(lively(Everywhere(), seed))
    wanted = float_outputs(network, x)
    CrossLayerEqualization(by).before_calibration(network, [(x,)])
    for got, expected in zip(float_outputs(network, x), wanted, strict=True):
        assert torch.allclose(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert differing(calibrate(network, x), convert(network, "net"), x) == {}


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_channels_scaled_by_50_are_recovered(share: float) -> None:
    x, seen = images(32, seed=1), images(32, seed=2)
    healthy = calibrate(prepared(lively(KeypointNet(), 3)), seen)
    wanted = float_outputs(healthy, x)
    plain = noise_share(healthy, x, wanted)
    broken, repaired = prepared(lively(KeypointNet(), 3)), prepared(lively(KeypointNet(), 3))
    for network in (broken, repaired):
        break_channels(network, seen, 50.0, share)
    assert noise_share(calibrate(broken, seen), x, wanted) > 3.0 * plain
    CrossLayerEqualization().before_calibration(repaired, [(seen,)])
    assert noise_share(calibrate(repaired, seen), x, wanted) < 1.05 * plain


def test_the_predicted_error_does_not_depend_on_how_the_network_was_scaled() -> None:
    x = images(16)
    reports = []
    for factor in (1.0, 50.0):
        network = prepared(lively(KeypointNet(), 5))
        break_channels(network, x, factor, 0.2)
        CrossLayerEqualization().before_calibration(network, [(x,)])
        reports.append(network.repairs[0])
    assert reports[1]["predicted_error_before"] > 3 * reports[0]["predicted_error_before"]
    assert reports[1]["predicted_error_after"] == pytest.approx(reports[0]["predicted_error_after"], rel=0.1)
    assert reports[1]["greatest_factor"] > 20


def test_a_second_pass_finds_nothing_to_do() -> None:
    x = images(16)
    network = prepared(lively(KeypointNet(), 6))
    for _ in range(2):
        CrossLayerEqualization().before_calibration(network, [(x,)])
    first, second = network.repairs
    assert first["predicted_error_after"] < 0.9 * first["predicted_error_before"]
    assert second["predicted_error_after"] == pytest.approx(first["predicted_error_after"], rel=0.02)


def test_dead_channels_stay_finite_and_alone() -> None:
    x = images(16)
    net = lively(KeypointNet(), 7)
    with torch.no_grad():
        net.blocks[0].depthwise[1].weight[:3] = 0.0  # type: ignore[index,union-attr]
        net.blocks[0].depthwise[1].bias[:3] = -1.0  # type: ignore[index,union-attr]
        net.blocks[1].expand[0].weight[2] = 0.0  # type: ignore[index,union-attr]
        net.blocks[1].expand[1].bias[2] = 0.0  # type: ignore[index,union-attr]
    network = prepared(net)
    wanted = float_outputs(network, x)
    CrossLayerEqualization().before_calibration(network, [(x,)])
    assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
    assert torch.allclose(float_outputs(network, x)[0], wanted[0], rtol=1e-3, atol=1e-4)
    assert differing(calibrate(network, x), convert(network, "net"), x) == {}


def six() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU6(), nn.Conv2d(6, 6, 1), nn.ReLU6(), nn.Conv2d(6, 2, 1)).eval()


def test_relu6_stays_unless_nothing_reaches_it() -> None:
    x, net = images(8), six()
    with torch.no_grad():
        net[0].weight[0] *= 50.0  # type: ignore[index]
    network = prepared(net)
    wanted = float_outputs(network, x)
    CrossLayerEqualization().before_calibration(network, [(x,)])
    assert network.repairs[0]["channels"] == 0
    assert network.layer("0").bounds == Bounds(0.0, 6.0)
    CrossLayerEqualization(replace_relu6=True).before_calibration(network, [(x,)])
    assert network.repairs[1]["replaced_bounds"] == ["2"]
    assert (network.layer("0").bounds, network.layer("2").bounds) == (Bounds(0.0, 6.0), Bounds(0.0, None))
    assert torch.allclose(float_outputs(network, x)[0], wanted[0], atol=1e-4)
    # The next stage starts from the state alone.
    fresh = prepared(six())
    fresh.load_state_dict(calibrate(network, x).state_dict())
    assert torch.equal(fresh(x), network(x))
    assert differing(fresh, convert(network, "net"), x) == {}


def test_another_network_of_the_same_layers_is_scaled_alike() -> None:
    """So that a comparison with the float network holds like tensors against like."""
    x = images(8)
    network, other = prepared(lively(Everywhere(), 3)), prepared(lively(Everywhere(), 3))
    for replace in (False, True):
        CrossLayerEqualization(replace_relu6=replace).before_calibration(network, [(x,)])
    fresh = prepared(lively(Everywhere(), 3))
    fresh.load_state_dict(calibrate(network, x).state_dict())
    equalize_alike(other, fresh.equalizations, (x[:1],))
    with torch.no_grad():
        wanted, got = network.float_values([x], keep=True), other.float_values([x], keep=True)
    assert all(torch.equal(got[name], value) for name, value in wanted.items())
    with pytest.raises(QuantizationError, match="with other layers"):
        equalize_alike(prepared(six()), fresh.equalizations, (x[:1],))


def test_weights_are_balanced_as_in_the_paper() -> None:
    torch.manual_seed(0)
    x, net = images(8), nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    with torch.no_grad():
        net[0].weight[1] *= 100.0
    network = prepared(net)
    CrossLayerEqualization("weights").before_calibration(network, [(x,)])
    made = network.layer("0").weight.detach().abs().amax(dim=(1, 2, 3)).numpy()
    read = network.layer("2").weight.detach().abs().amax(dim=(0, 2, 3)).numpy()
    assert np.allclose(made, read, rtol=1e-2)


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown criterion") as caught:
        CrossLayerEqualization("weigths")
    assert caught.value.allowed == "ranges, weights"
    with pytest.raises(ConfigError, match="rounds is below 1"):
        CrossLayerEqualization(rounds=0)
