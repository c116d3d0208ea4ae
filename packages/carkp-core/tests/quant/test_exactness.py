"""One answer everywhere: the calibrated network in evaluation equals the reference executor of its integer model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exact_networks import Everything, assert_exact, calibrated, differing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from carkp_core.quant.convert import convert
from carkp_core.quant.learned_scale import ScaleGuard, learned_scales, parameter_groups
from carkp_core.quant.prepare import prepare
from carkp_core.quant.settings import QAT_MODES, quant_settings

torch.set_num_threads(1)


def test_every_operator_is_exact() -> None:
    torch.manual_seed(0)
    graph = assert_exact(Everything(), torch.randn(3, 3, 16, 16))
    kinds = {node.op.kind for node in graph.nodes}
    assert kinds == {
        "conv2d", "conv_transpose2d", "add", "mul", "constant", "concat", "slice", "pad", "max_pool", "avg_pool",
        "resize", "rescale", "clamp", "table", "reshape", "transpose",
    }  # fmt: skip


def test_int16_activations_are_exact() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2),
        nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.MaxPool2d(2),
    )  # fmt: skip
    x = torch.randn(2, 3, 12, 12)
    names = [step.name for step in prepare(net.eval(), {"img": x[:1]}).steps]
    graph = assert_exact(net, x, dtypes=dict.fromkeys(names, "int16"))
    assert {node.type.dtype for node in graph.nodes} == {"int16"}


@st.composite
def small_networks(draw: st.DrawFn) -> tuple[nn.Module, int]:
    """Chains of random layers with degenerate channels: dead, tiny, huge, bias far above weights."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    channels = inside = draw(st.integers(1, 5))
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 5))):
        out = draw(st.integers(1, 5))
        transposed = draw(st.booleans()) and draw(st.booleans())
        layer: Any = nn.ConvTranspose2d(channels, out, 2, 2) if transposed else nn.Conv2d(channels, out, 3, padding=1)
        with torch.no_grad():
            for channel in range(out):
                weight = layer.weight[:, channel] if transposed else layer.weight[channel]
                weight *= draw(st.sampled_from([1.0, 0.0, 1e-12, 1e-30, 1e4, 50.0]))
                layer.bias[channel] *= draw(st.sampled_from([1.0, 0.0, 1e6, 1e-9]))
        layers.append(layer)
        layers.append(draw(st.sampled_from([nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.Identity(), nn.Sigmoid()])))
        channels = out
    return Residual(layers, draw(st.booleans())), inside


class Residual(nn.Module):
    """A chain whose layers add their input where the shapes allow it."""

    def __init__(self, layers: list[nn.Module], subtract: bool) -> None:
        super().__init__()
        self.layers, self.subtract = nn.ModuleList(layers), subtract

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            y = layer(x)
            same = y.shape == x.shape and isinstance(layer, nn.Conv2d)
            x = (x - y if self.subtract else y + x) if same else y
        return x


@settings(max_examples=40, deadline=None)
@given(small_networks())
def test_random_networks_with_degenerate_channels_are_exact(case: tuple[nn.Module, int]) -> None:
    net, inside = case
    assert_exact(net, torch.randn(2, inside, 6, 6))


def test_training_has_the_same_forward_values() -> None:
    torch.manual_seed(2)
    net = Everything()
    x = torch.randn(2, 3, 16, 16)
    network = calibrated(net, x)
    expected = network(x)
    network.train()
    got = network(x)
    assert torch.equal(got["heat"], expected["heat"])
    loss = got["heat"].square().mean() + got["rest"][0].square().mean()
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) > 10
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_gradients_are_near_the_float_networks() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1)
    )
    x, target = torch.randn(8, 3, 12, 12), torch.randn(8, 4, 12, 12)
    network = calibrated(net, x).train()
    F.mse_loss(net(x), target).backward()
    F.mse_loss(network(x), target).backward()
    pairs = zip(net.parameters(), network.parameters(), strict=True)
    for float_parameter, parameter in pairs:
        a, b = float_parameter.grad, parameter.grad
        assert a is not None
        assert b is not None
        assert float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.98
        assert 0.9 < float(b.norm() / a.norm()) < 1.1


def test_state_dict_restores_the_same_integers() -> None:
    torch.manual_seed(4)
    net, x = Everything(), torch.randn(2, 3, 16, 16)
    network = calibrated(net, x)
    torch.manual_seed(5)
    other = prepare(Everything().eval(), {"img": x[:1]}).eval()
    other.load_state_dict(network.state_dict())
    a, b = convert(network, "net"), convert(other, "net")
    # Constants such as slopes that are not parameters are part of the network, not of the checkpoint.
    assert a.digest() == b.digest()


def test_outputs_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(6)
    net, x = Everything(), torch.randn(3, 3, 16, 16)
    network = calibrated(net, x)
    together = network(x)["heat"]
    assert torch.equal(together, torch.cat([network(x[i : i + 1])["heat"] for i in range(3)]))
    assert np.isfinite(together.detach().numpy()).all()


@pytest.mark.parametrize("mode", QAT_MODES)
@pytest.mark.parametrize(
    "params",
    [
        {"activation_qat_observer": "min_max"},
        {"activation_qat_observer": "learned"},
        {"activation_qat_observer": "learned", "weight_qat_observer": "learned"},
    ],
    ids=["follows", "learned", "learned weights too"],
)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_a_trained_network_equals_its_own_integer_model(mode: str, params: dict[str, str], dtype: str) -> None:
    torch.manual_seed(7)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Residual([nn.Conv2d(8, 8, 1)], False),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    x, target = torch.randn(8, 3, 8, 8), torch.randn(8, 2, 16, 16)
    names = ["img", *(step.name for step in prepare(net.eval(), {"img": x[:1]}).steps)]
    network = calibrated(net, x, dict.fromkeys(names, dtype), settings=quant_settings(mode, params)).train()
    before = [float(layer.scale.detach()) for _, layer in network.scaled_layers()]
    optimizer = torch.optim.SGD(parameter_groups(network), lr=0.05)
    ScaleGuard(learned_scales(network)).attach(optimizer)
    losses = []
    for _ in range(20):
        loss = F.mse_loss(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert before != [float(layer.scale.detach()) for _, layer in network.scaled_layers()]
    assert differing(network.eval(), convert(network, "net"), x) == {}
