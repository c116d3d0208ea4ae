"""Folding, simplifying and fusing: before, after, and nothing more the second time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.quant.fold_batch_norm import fold_batch_norm
from carkp_core.quant.fuse import fuse
from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.layer import Bounds
from carkp_core.quant.lower import definitions, lower
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.simplify import simplify
from carkp_core.quant.trace import trace


def lowered(net: nn.Module) -> LayerGraph:
    return lower(trace(net.eval(), {"img": torch.randn(1, 4, 8, 8)}), definitions())


def kinds(layers: LayerGraph) -> list[str]:
    return [layer.kind for node in layers if (layer := layers.layer(node))]


def test_batch_norm_is_folded_behind_a_convolution_and_alone_becomes_one() -> None:
    net = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6))
    layers = lowered(net)
    assert kinds(layers) == ["batch_norm", "conv2d", "batch_norm", "clamp", "batch_norm"]
    for _ in range(2):
        fold_batch_norm(layers)
        assert kinds(layers) == ["conv2d", "conv2d", "clamp", "conv2d"]


def test_batch_norm_is_not_folded_into_a_convolution_with_other_readers() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.bn(x) + x

    layers = lowered(Branch())
    fold_batch_norm(layers)
    assert kinds(layers) == ["conv2d", "conv2d", "add"]


def test_with_bn_keeps_the_batch_norm_in_the_layer() -> None:
    layers = lowered(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)))
    fold_batch_norm(layers, "with_bn")
    (layer,) = layers.layers.values()
    assert isinstance(layer, Conv2d)
    assert layer.bn is not None


class Residual(nn.Module):
    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        z = self.b(y)
        if self.order == "between":
            z = F.relu(z)
        total = {"after": lambda: y + z, "before": lambda: z + y, "minus": lambda: y - z, "between": lambda: y + z}
        out = total[self.order]()
        return F.relu(out) + z.mean() if self.order == "shared" else F.relu(out)


def fused(net: nn.Module) -> LayerGraph:
    layers = lowered(net)
    simplify(layers)
    fuse(layers)
    return layers


def test_the_convolution_executed_last_takes_the_add_and_the_activation() -> None:
    for order in ("after", "before"):
        layers = fused(Residual(order))
        assert kinds(layers) == ["conv2d", "conv2d"]
        last = layers.layers["b"]
        assert isinstance(last, Conv2d)
        assert last.residual == "+"
        assert last.bounds == Bounds(0.0, None)


def test_a_negated_convolution_or_one_with_something_between_is_not_fused() -> None:
    assert kinds(fused(Residual("minus"))) == ["conv2d", "conv2d", "add"]
    assert kinds(fused(Residual("between"))) == ["conv2d", "conv2d", "add"]


def test_a_transposed_convolution_does_not_take_an_add() -> None:
    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(x[..., ::2, ::2]) + x

    assert kinds(fused(Up())) == ["slice", "slice", "conv_transpose2d", "add"]


def test_a_shared_result_keeps_its_own_clamp() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.conv(x)
            return F.relu(x), x

    assert kinds(fused(Shared())) == ["conv2d", "clamp"]


def test_moves_that_do_nothing_go() -> None:
    class Moves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            x = x.flatten(1).view(x.shape[0], 4, 8, 8).clamp(min=-3).clamp(max=2)
            return x[:, :, :8] + F.pad(x, (0, 0))

    assert kinds(fused(Moves())) == ["clamp", "add"]


def test_bounds_compose_as_clamps_do() -> None:
    x = torch.linspace(-9, 9, 181)
    edges = (None, -5.0, -1.0, 0.0, 2.0, 6.0)
    pairs = [Bounds(a, b) for a in edges for b in edges if a is None or b is None or a <= b]
    for first in pairs:
        for second in pairs:
            assert torch.equal(first.then(second).apply(x), second.apply(first.apply(x)))
