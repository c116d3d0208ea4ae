"""Channels that are found to be free may be scaled by anything; those that are not stay."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from repair_nets import Everywhere, KeypointNet, float_outputs, images, lively, prepared
from torch import Tensor, nn

from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.channel_scales import FIXED, ChannelScales, channel_scales
from carkp_core.quant.repair.equalize import apply_factors


def variables(network: QuantizedNetwork, x: Tensor) -> ChannelScales:
    return channel_scales(network, (x[:1],))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), mode=st.sampled_from(["fuse_bn", "with_bn"]))
def test_any_factors_leave_the_float_function(seed: int, mode: str) -> None:
    from carkp_core.quant.settings import quant_settings

    x = images(4, seed=seed)
    network = prepared(lively(Everywhere(), seed), settings=quant_settings(mode))
    wanted = float_outputs(network, x)
    scales = variables(network, x)
    factors = np.exp(np.random.default_rng(seed).normal(0.0, 2.0, scales.count + 1))
    factors[[FIXED, -1]] = 1.0
    apply_factors(scales, factors)
    for got, expected in zip(float_outputs(network, x), wanted, strict=True):
        assert torch.allclose(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_residual_trunk_is_one_group_and_depthwise_layers_have_their_own() -> None:
    x = images(2)
    scales = variables(prepared(lively(KeypointNet(), 0)), x)
    outputs = {found.name: found.outputs for found in scales.weighted}
    trunk = [outputs[name] for name in ("stem.0", "blocks.0.project.0", "blocks.1.project.0")]
    assert all(np.array_equal(trunk[0], other) for other in trunk)
    apart = [outputs[name] for name in ("blocks.0.expand.0", "blocks.0.depthwise.0", "blocks.1.expand.0", "up")]
    assert len(np.unique(np.concatenate([trunk[0], *apart]))) == 8 + 16 * 3 + 8
    # Nothing but the heatmaps keeps its scale.
    assert [name for name, ids in outputs.items() if (ids == FIXED).any()] == ["final"]


def test_what_is_not_homogeneous_keeps_its_channels() -> None:
    x = images(2)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 4, 1), nn.ReLU(),
                        nn.Conv2d(4, 2, 1))  # fmt: skip
    scales = variables(prepared(net.eval()), x)
    free = {found.name: bool((found.outputs != FIXED).all()) for found in scales.weighted}
    assert free == {"0": False, "2": False, "4": True, "6": False}


def test_a_gate_leaves_the_channels_that_it_gates_free() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True))))  # type: ignore[no-any-return]

    scales = variables(prepared(Gated().eval()), images(2))
    found = {weighted.name: weighted for weighted in scales.weighted}
    assert (found["a"].outputs != FIXED).all()
    assert np.array_equal(found["a"].outputs, found["b"].inputs[0])
    assert (found["gate"].outputs == FIXED).all()


def test_flattened_channels_are_read_position_by_position() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 2)).eval()
    scales = variables(prepared(net), images(2))
    first, last = scales.weighted
    assert np.array_equal(last.inputs[0], np.repeat(first.outputs, 256))


def test_layers_that_share_weights_share_factors() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.b(self.a(x)).relu()).relu())  # type: ignore[no-any-return]

    scales = variables(prepared(Twice().eval()), images(2))
    a, first, second, c = scales.weighted
    assert np.array_equal(first.outputs, second.outputs)
    assert np.array_equal(a.outputs, first.outputs)
    assert np.array_equal(c.inputs[0], first.outputs)


def test_chosen_channels_keep_their_variables() -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.index_select(self.a(x).relu(), 1, torch.tensor([2, 0, 2])))  # type: ignore[no-any-return]

    first, last = variables(prepared(Chosen().eval()), images(2)).weighted
    assert np.array_equal(last.inputs[0], first.outputs[[2, 0, 2]])
