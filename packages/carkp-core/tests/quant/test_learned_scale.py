from __future__ import annotations

from typing import Any

import pytest
import torch
from exact_networks import calibrated
from torch import nn

from carkp_core.quant.learned_scale import MOST_PER_STEP, ScaleGuard, learned_scales, parameter_groups
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare
from carkp_core.quant.settings import quant_settings

torch.set_num_threads(1)


def learning(weights: bool = False, mode: str = "fuse_bn") -> QuantizedNetwork:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    params = {"activation_qat_observer": "learned"} | ({"weight_qat_observer": "learned"} if weights else {})
    settings = quant_settings(mode, params)
    return calibrated(net, torch.randn(4, 3, 8, 8), settings=settings, input_scales={"img": 1 / 128}).train()


def test_scales_are_parameters_but_for_a_fixed_input() -> None:
    network = learning()
    assert len(learned_scales(network)) == 2
    assert "inputs.img.scale" in dict(network.named_buffers())
    plain = calibrated(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(2, 3, 8, 8))
    assert learned_scales(plain) == []
    assert parameter_groups(plain) == list(plain.parameters())


def test_weight_decay_leaves_scales_alone() -> None:
    network = learning(weights=True)
    groups = parameter_groups(network)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    optimizer = torch.optim.SGD(groups, lr=1.0, weight_decay=0.5)
    network(torch.randn(2, 3, 8, 8))  # sets the scales of the weights
    before = [scale.detach().clone() for scale in learned_scales(network)]
    weight = network.layer("0").weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, learned_scales(network), strict=True))
    assert torch.allclose(network.layer("0").weight, weight * 0.5)


def test_calibrated_weights_set_their_own_learned_scales() -> None:
    network = learning(weights=True)
    conv: Any = network.layer("0")
    assert not conv.weight_scale.any()
    unset = network.eval()(torch.ones(1, 3, 8, 8))
    network.train()(torch.ones(1, 3, 8, 8))
    assert torch.allclose(conv.weight_scale, conv.weight.flatten(1).abs().amax(dim=1) / 127)
    assert torch.equal(network.eval()(torch.ones(1, 3, 8, 8)), unset)


@pytest.mark.parametrize("mode", ["with_bn", "with_bn_reverse_fold"])
def test_learned_scales_of_weights_are_folded_with_them(mode: str) -> None:
    network, x = learning(weights=True, mode=mode), torch.randn(2, 3, 8, 8)
    network(x)
    conv: Any = network.layer("0")
    conv.bn.running_var.uniform_(0.1, 9.0)
    whole = conv.constants(network.integer_values([x], ["img"])["img"]).weight
    expected = (conv.weight / conv.weight_scale.reshape(-1, 1, 1, 1)).round().flatten(1)
    assert float((whole - expected).detach().abs().max()) <= 1
    assert float((whole != expected).float().mean()) < 0.01


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.Adam])
def test_no_optimizer_step_makes_a_scale_negative_or_huge(optimizer_type: Any) -> None:
    network = learning(weights=True)
    optimizer = optimizer_type(parameter_groups(network), lr=10.0)
    ScaleGuard(learned_scales(network)).attach(optimizer)
    network(torch.randn(2, 3, 8, 8)).square().mean().backward()
    before = [scale.detach().clone() for scale in learned_scales(network)]
    optimizer.step()
    moved = [after / old for after, old in zip(learned_scales(network), before, strict=True)]
    assert all(bool((ratio > 0.99 / MOST_PER_STEP).all() and (ratio < 1.01 * MOST_PER_STEP).all()) for ratio in moved)
    assert any(bool((ratio != 1).any()) for ratio in moved)


def test_adams_steps_are_relative_and_frozen_scales_keep_their_bits() -> None:
    scale, frozen = nn.Parameter(torch.tensor(0.004)), nn.Parameter(torch.tensor([0.3, 0.07]))
    optimizer = torch.optim.AdamW([scale, frozen], lr=1e-3, weight_decay=0.0)
    ScaleGuard([scale, frozen]).attach(optimizer)
    scale.grad = torch.tensor(5.0)
    optimizer.step()
    assert float(scale.detach()) == pytest.approx(0.004 * (1 - 1e-3), rel=1e-5)
    assert torch.equal(frozen, torch.tensor([0.3, 0.07]))


def test_a_calibrated_state_fits_a_learning_network_and_back() -> None:
    torch.manual_seed(1)
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8)
    plain = calibrated(net, x)
    other = prepare(net, {"img": x[:1]}, settings=quant_settings("fuse_bn", {"activation_qat_observer": "learned"}))
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other.eval()(x), plain(x))
    plain.load_state_dict(other.state_dict())
    assert torch.equal(other(x), plain(x))
