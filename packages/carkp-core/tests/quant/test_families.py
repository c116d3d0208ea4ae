"""Idioms of public backbones, each through trace, calibration and conversion, exact to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.quant.convert import convert
from carkp_core.quant.prepare import prepare

torch.set_num_threads(1)


def conv_bn(inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


class ShuffleUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.branch = nn.Sequential(conv_bn(4, 4), nn.ReLU(inplace=True), conv_bn(4, 4, 3, groups=4), conv_bn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, F.relu(self.branch(right))), dim=1)
        batch, channels, height, width = x.data.size()
        x = x.view(batch, 2, channels // 2, height, width)
        return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width).mean([2, 3])


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc1, self.fc2 = conv_bn(3, 8, 3, 2), nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem(x))
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        y = F.hardsigmoid(self.fc2(F.relu(self.fc1(y)))).view(b, c, 1, 1)
        return x * y.expand_as(x)


class Dense(nn.Module):
    """Batch norm before the convolution, every layer's output concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 * (i + 1)) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 * (i + 1), 4, 3, padding=1) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)), inplace=True)))
        return torch.cat(features, 1)


class Ghost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.primary, self.cheap = conv_bn(3, 6, 3, 2), conv_bn(6, 6, 3, groups=6)

    def forward(self, x: Tensor) -> Tensor:
        x1 = F.relu(self.primary(x))
        x2 = F.relu(self.cheap(x1))
        return torch.cat([x1, x2], dim=1)[:, :10, :, :]


class Reparametrized(nn.Module):
    """Three parallel branches, one of them a lone batch norm, and a module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.three, self.one, self.identity = (
            conv_bn(3, 8, 3, 2),
            conv_bn(8, 8, 3),
            conv_bn(8, 8),
            nn.BatchNorm2d(8),
        )

    def block(self, x: Tensor) -> Tensor:
        return F.relu(self.three(x) + self.one(x) + self.identity(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(self.stem(x)))


class WrittenOut(nn.Module):
    """Activations spelled in arithmetic, a layer scale, a focus slice, spatial attention by channel mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gamma = conv_bn(12, 8, 3), nn.Parameter(torch.full((8,), 0.1))
        self.attend = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        x = self.conv(x)
        x = x * F.relu6(x + 3.0) / 6.0
        x = x + self.gamma.view(1, -1, 1, 1) * x
        maps = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.attend(maps).sigmoid() + torch.zeros_like(x)


class Pyramid(nn.Module):
    """Top-down merging by sizes, and several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = conv_bn(3, 4, 3, 2), conv_bn(4, 4, 3, 2), conv_bn(4, 4, 3, 2)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        a = F.silu(self.c1(x))
        b = F.silu(self.c2(a))
        c = F.silu(self.c3(b))
        c = torch.cat([c, self.pool(c), self.pool(self.pool(c))], 1)[:, 4:8]
        b = b + F.interpolate(c, size=b.shape[-2:], mode="nearest")
        a = a + F.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)
        return [a, b, c]


@pytest.mark.parametrize("family", [ShuffleUnit, SqueezeExcite, Dense, Ghost, Reparametrized, WrittenOut, Pyramid])
def test_the_idiom_is_exact(family: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = family().eval()
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.3, 2)  # type: ignore[union-attr]
    x = torch.randn(3, 3, 32, 32)
    network = prepare(net, {"img": x[:1]}).eval()
    network.start_observing()
    network(x)
    network.finish_observing()
    graph = convert(network, family.__name__)
    names = [node.name for node in graph.nodes]
    expected = reference.execute(graph, {"img": quantize(x.numpy(), graph.inputs[0].type.scale, "int8")}, names)
    with torch.no_grad():
        got = network.integer_values([x], names)
    assert {n: int((got[n].values.numpy() != expected[n]).sum()) for n in names} == dict.fromkeys(names, 0)
    with torch.no_grad():
        floats, quantized = net(x), network(x)
    pairs = zip(floats, quantized, strict=True) if isinstance(floats, list) else [(floats, quantized)]
    for a, b in pairs:
        assert float((a - b).square().mean()) < 0.02 * float(a.square().mean())
