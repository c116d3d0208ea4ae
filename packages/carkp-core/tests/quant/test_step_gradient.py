"""The gradient of learned steps against LSQ as the paper writes it, on floats."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from exact_networks import Everything, calibrated
from torch import Tensor, nn

from carkp_core.quant.settings import quant_settings
from carkp_core.quant.step_gradient import LearnedStep, learning, noted, step_slope

torch.set_num_threads(1)

LEARNED = {"activation_qat_observer": "learned"}


class Lsq(torch.autograd.Function):
    """The paper's quantizer: scales [] or one for each row of v [O, count]."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, s: Tensor, lo: int, hi: int, features: int, levels: int) -> Tensor:
        u = v / s
        ctx.save_for_backward(u, s)
        ctx.ends, ctx.factor = (lo, hi), 1 / math.sqrt(features * levels)
        return u.round().clamp(lo, hi) * s

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, s = ctx.saved_tensors
        lo, hi = ctx.ends
        below, above = u.round() < lo, u.round() > hi
        slope = torch.where(below, float(lo), torch.where(above, float(hi), u.round() - u))
        to_s = (gradients[0] * slope).sum_to_size(s.shape) * ctx.factor
        return gradients[0] * ~(below | above), to_s, None, None, None, None


def textbook(net: nn.Sequential, x: Tensor, scales: list[Tensor], weight_scales: list[Tensor], levels: int) -> Tensor:
    """Convolution, ReLU, convolution with quantized input, weights and outputs."""
    x = Lsq.apply(x, scales[0], -levels - 1, levels, x[0].numel(), levels)
    for conv, scale, s_w, lo in zip((net[0], net[2]), scales[1:], weight_scales, (0, -levels - 1), strict=True):
        assert isinstance(conv, nn.Conv2d)
        rows = conv.weight.flatten(1)
        weight = Lsq.apply(rows, s_w[:, None], -127, 127, rows.shape[1], 127).reshape(conv.weight.shape)
        y = F.conv2d(x, weight, conv.bias, padding=conv.padding)  # type: ignore[arg-type]
        x = Lsq.apply(y, scale, lo, levels, y[0].numel(), levels)
    return x


@pytest.mark.parametrize(("dtype", "levels"), [("int8", 127), ("int16", 32767)])
def test_scales_have_the_papers_gradients(dtype: str, levels: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).eval()
    x, target = torch.randn(4, 3, 10, 10), torch.randn(4, 4, 10, 10)
    dtypes = {"img": dtype, "0": dtype, "2": dtype}
    both = LEARNED | {"weight_qat_observer": "learned"}
    network = calibrated(net, x, dtypes=dtypes, settings=quant_settings("fuse_bn", both)).train()
    with torch.no_grad():
        for name, layer in network.scaled_layers():
            layer.scale.mul_(0.7 if name == "0" else 0.9)  # so that every clamp has elements
    F.mse_loss(network(x), target).backward()
    layers: list[Any] = [network.layer(name) for name in ("img", "0", "2")]
    weight_scales = [nn.Parameter(layer.weight_scale.detach().clone()) for layer in layers[1:]]
    scales = [nn.Parameter(layer.scale.detach().clone()) for layer in layers]
    F.mse_loss(textbook(net, x, scales, weight_scales, levels), target).backward()
    for expected, layer in zip(scales, layers, strict=True):
        assert float(layer.scale.grad) == pytest.approx(float(expected.grad), rel=0.02)
    for expected, layer in zip(weight_scales, layers[1:], strict=True):
        assert expected.grad is not None
        most = float(expected.grad.abs().max())
        torch.testing.assert_close(layer.weight_scale.grad, expected.grad, rtol=0.02, atol=0.01 * most)


def test_the_slope_is_that_of_the_clamp_that_acts() -> None:
    unrounded = torch.tensor([-300.0, -0.3, 0.4, 5.75, 200.0])
    values = unrounded.round().clamp(0, 127)
    assert step_slope(values, unrounded, 0, 127, "int8").tolist() == pytest.approx([0.0, 0.3, -0.4, 0.25, 127.0])
    values = unrounded.round().clamp(-128, 6)
    assert step_slope(values, unrounded, -128, 6, "int8").tolist() == pytest.approx([-128.0, 0.3, -0.4, 0.25, 0.0])


def test_nothing_is_noted_where_no_step_is_learned() -> None:
    values = torch.ones(3)

    def unexpected() -> Tensor:
        raise AssertionError("asked for")

    assert noted(values, unexpected, 0, 1) is values
    with learning(LearnedStep(torch.ones(()), "int8")), torch.no_grad():
        assert noted(values, unexpected, 0, 1) is values


def test_every_operators_scale_learns_and_the_forward_values_stay() -> None:
    torch.manual_seed(1)
    net, x = Everything(), torch.randn(2, 3, 16, 16)
    network = calibrated(net, x, settings=quant_settings("fuse_bn", LEARNED))
    expected = network(x)
    got = network.train()(x)
    assert torch.equal(got["heat"], expected["heat"])
    everything = [got["heat"], *got["rest"][:2], *got["rest"][2]]
    torch.stack([value.square().mean() for value in everything]).sum().backward()
    gradients = {name: layer.scale.grad for name, layer in network.scaled_layers()}
    assert all(gradient is not None and bool(torch.isfinite(gradient)) for gradient in gradients.values())
    # Minus x has the steps of x, so nothing is rounded and any step does.
    assert [name for name, gradient in gradients.items() if gradient == 0] == ["neg"]
