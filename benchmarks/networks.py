"""Networks that others publish figures for, written out: ResNet-18, MobileNetV2 and one like VGG.

The one like VGG comes in two sizes. At 128x128, the keypoint network's own, each layer's map fits into 512 KiB beside a
piece of its weights. At 224x224 neither a map nor the weights of its widest layers do: a case without a good answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    """Convolution, batch norm, ReLU6 or nothing."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if act else []))


class Basic(nn.Module):
    """A block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3, act=False))
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else conv(inputs, outputs, 1, stride, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


class Inverted(nn.Module):
    """A block of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        first = [conv(inputs, wide, 1)] if expand > 1 else []
        self.body = nn.Sequential(*first, conv(wide, wide, 3, stride, wide), conv(wide, outputs, 1, act=False))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def classifier(channels: int) -> list[nn.Module]:
    """Pooling and 1000 classes."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]


def resnet18() -> nn.Module:
    """11.7 million weights, 1.8 billion products."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Basic(inputs, outputs, stride), Basic(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, *classifier(512))


def mobilenet_v2() -> nn.Module:
    """3.5 million weights, 0.3 billion products."""
    layers: list[nn.Module] = [conv(3, 32, 3, 2)]
    inputs = 32
    for expand, outputs, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for index in range(count):
            layers.append(Inverted(inputs, outputs, stride if index == 0 else 1, expand))
            inputs = outputs
    return nn.Sequential(*layers, conv(320, 1280, 1), *classifier(1280))


def vgg() -> nn.Module:
    """VGG-11's convolutions and one linear layer: 9.7 million weights, 7.5 billion products at 224x224."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, count in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)):
        for _ in range(count):
            layers.append(conv(inputs, outputs, 3))
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *classifier(512))


#: By name: what makes it, and the side of its input.
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-18": (resnet18, 224),
    "MobileNetV2": (mobilenet_v2, 224),
    "VGG-like": (vgg, 128),
    "VGG-like at 224": (vgg, 224),
}
