"""Networks for the tests of repair passes: every structure that channels may be scaled through, and some more."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare
from carkp_core.quant.repair.channel_scales import channel_scales
from carkp_core.quant.repair.equalize import apply_factors

torch.set_num_threads(1)


def lively(net: nn.Module, seed: int) -> nn.Module:
    """Random weights and batch norms, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            deviation = 0.5 if parameter.ndim < 2 else 1.4 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.abs_().add_(0.3)
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return net.eval()


def conv_bn(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Inverted(nn.Module):
    """An inverted residual block, as EfficientNet has them."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand, self.depthwise = conv_bn(channels, wide), conv_bn(wide, wide, 3, wide)
        self.project = conv_bn(wide, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.relu(self.depthwise(F.relu(self.expand(x)))))


class KeypointNet(nn.Module):
    """A small trunk with residual blocks, and a transposed convolution to heatmaps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, stride=2)
        self.blocks = nn.Sequential(Inverted(8, 16), Inverted(8, 16))
        self.up, self.up_bn = nn.ConvTranspose2d(8, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.final = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        return self.final(F.relu(self.up_bn(self.up(x))))  # type: ignore[no-any-return]


class Everywhere(nn.Module):
    """Pools, concat, slices, gates, resizes, grouped and shared convolutions, linear layers, ReLU6, leaky ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv_bn(3, 8, 3), Inverted(8, 12)
        self.left, self.right = conv_bn(8, 6, 3), conv_bn(8, 6, 1)
        self.grouped, self.shared = nn.Conv2d(12, 12, 3, padding=1, groups=3), nn.Conv2d(12, 12, 1)
        self.gate, self.odd = nn.Conv2d(12, 12, 1), nn.ConvTranspose2d(12, 8, 3, 2, 1, output_padding=1, groups=2)
        self.six, self.after_six = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1)
        self.prelu = nn.PReLU(12)
        self.fc1, self.fc2 = nn.Linear(8 * 4, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.block(F.relu(self.stem(x)))
        pooled = torch.cat([F.max_pool2d(F.relu(self.left(x)), 2), F.avg_pool2d(self.right(x), 2)], dim=1)
        y = self.prelu(self.grouped(F.pad(pooled, (1, 0, 0, 1)))[:, :, 1:, :-1])
        y = self.shared(F.leaky_relu(self.shared(y), 0.2))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        y = torch.index_select(y, 1, torch.tensor([3, 1, 2, 0, 7, 7, 6, 5, 4, 11, 9, 8])) * 1.5
        a, b = y.chunk(2, dim=1)
        y = F.interpolate(torch.cat([b, a], dim=1), scale_factor=2, mode="nearest")
        z = F.relu(self.odd(F.interpolate(y, scale_factor=0.5, mode="bilinear")))
        z = F.relu6(self.six(z))
        small = F.adaptive_avg_pool2d(z, 2).flatten(1)
        return [self.after_six(z), self.fc2(F.relu(self.fc1(small)))]


class TwoUnits(nn.Module):
    """Two outputs of one trunk, the second in another unit."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.deep = nn.Conv2d(8, 4, 3)
        lively(self, 0)
        with torch.no_grad():
            self.second.weight.mul_(unit)
            self.second.bias.mul_(unit)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self.stem(x))
        return [self.deep(F.relu(self.first(x))), self.second(x)]


def prepared(net: nn.Module, size: int = 16, **kwargs: object) -> QuantizedNetwork:
    return prepare(net, {"img": torch.zeros(1, 3, size, size)}, **kwargs).eval()  # type: ignore[arg-type]


def images(count: int = 8, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def calibrate(network: QuantizedNetwork, x: Tensor) -> QuantizedNetwork:
    network.start_observing()
    network(x)
    network.finish_observing()
    return network


def break_channels(network: QuantizedNetwork, x: Tensor, factor: float, share: float, seed: int = 0) -> None:
    """Multiply a share of the channels that may be scaled by a factor, without changing the float function."""
    scales = channel_scales(network, (x[:1],))
    generator = np.random.default_rng(seed)
    factors = np.where(generator.random(scales.count + 1) < share, 1.0 / factor, 1.0)
    factors[[0, -1]] = 1.0
    apply_factors(scales, factors)


def float_outputs(network: QuantizedNetwork, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        values = network.float_values([x])
    return [values[name] for name in network.output_names]


def noise_share(network: QuantizedNetwork, x: Tensor, wanted: list[Tensor]) -> float:
    """Squared error of the integer outputs in parts of the signal."""
    with torch.no_grad():
        got = network.integer_values([x])
    outputs = [got[name].values * got[name].scale for name in network.output_names]
    noise = sum(float((o - w).square().sum()) for o, w in zip(outputs, wanted, strict=True))
    return noise / sum(float(w.square().sum()) for w in wanted)
