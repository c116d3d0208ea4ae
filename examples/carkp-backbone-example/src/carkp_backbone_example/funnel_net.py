"""FunnelNet: ghost modules with the funnel activation.

A ghost module (Han et al., 2020) computes half of its channels with a plain convolution and the other half from those
with a cheap depthwise one. The funnel activation (Ma et al., 2020) is ``max(x, T(x))`` with ``T`` a depthwise
convolution and a batch norm: each pixel is compared with what its neighbours say.

Shapes: image [N, 3, H, W]; feature map ``i`` is [N, width * 2**i, H / 2**(i+1), W / 2**(i+1)].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Feature(NamedTuple):
    """What a head has to know of a feature map."""

    channels: int
    stride: int


class Funnel(nn.Module):
    """``max(x, T(x))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.window = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.norm(self.window(x)))


class Ghost(nn.Module):
    """Half of the channels from a convolution, half from those by a depthwise one."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        half = outside // 2
        self.primary = nn.Sequential(
            nn.Conv2d(inside, half, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(half)
        )
        self.cheap = nn.Sequential(nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half))

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], dim=1)


class Stage(nn.Module):
    """Half the resolution, then ``depth`` residual blocks."""

    def __init__(self, inside: int, outside: int, depth: int) -> None:
        super().__init__()
        self.down = nn.Sequential(Ghost(inside, outside, kernel=3, stride=2), Funnel(outside))
        self.blocks = nn.ModuleList(nn.Sequential(Ghost(outside, outside), Funnel(outside)) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        for block in self.blocks:
            x = x + block(x)
        return x


class FunnelNet(nn.Module):
    """Image to a list of four feature maps with strides 2, 4, 8 and 16.

    Parameters
    ----------
    width:
        Channels of the first stage, even; each stage doubles them.
    depth:
        Residual blocks in each stage.
    """

    def __init__(self, width: int = 16, depth: int = 1) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width must be even and positive, not {width}")
        self.feature_info = tuple(Feature(width * 2**i, 2 ** (i + 1)) for i in range(4))
        inside = [3, *(feature.channels for feature in self.feature_info)]
        self.stages = nn.ModuleList(
            Stage(inside[i], feature.channels, depth) for i, feature in enumerate(self.feature_info)
        )

    def forward(self, img: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            img = stage(img)
            features.append(img)
        return features
