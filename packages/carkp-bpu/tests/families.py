"""Small networks of many public families, written as their authors do: what any convolutional network may ask for.

Shapes: image [N, 3, H, W], H and W multiples of 16; classifiers answer [N, 10], the others with maps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(
    inside: int, outside: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type = nn.ReLU
) -> nn.Sequential:
    padding = (kernel - 1) // 2
    conv = nn.Conv2d(inside, outside, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), act())


class Classifier(nn.Module):
    """Features, global average, a linear layer."""

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features, self.fc = features, nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class ResidualBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = nn.Conv2d(outside, outside, 3, 1, 1, groups=groups, bias=False), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        change = stride != 1 or inside != outside
        self.down = nn.Sequential(nn.Conv2d(inside, outside, 1, stride), nn.BatchNorm2d(outside)) if change else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.down is None else self.down(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class PaddedShortcut(nn.Module):
    """The parameter-free shortcut of CIFAR ResNets: every other pixel, zeros for the new channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv_bn(3, 8), nn.Sequential(conv_bn(8, 12, stride=2), conv_bn(12, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, gate: nn.Module, conv: bool = True) -> None:
        super().__init__()
        make = (lambda a, b: nn.Conv2d(a, b, 1)) if conv else nn.Linear
        self.reduce, self.expand, self.gate = make(channels, 4), make(4, channels), gate

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((2, 3), keepdim=True)
        if isinstance(self.reduce, nn.Linear):
            s = s.view(x.size(0), -1)
        s = self.gate(self.expand(F.relu(self.reduce(s))))
        return x * s.view(x.size(0), -1, 1, 1)


class InvertedResidual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, act: type, gate: nn.Module | None = None) -> None:
        super().__init__()
        wide = inside * 3
        parts = [conv_bn(inside, wide, 1, act=act), conv_bn(wide, wide, 3, stride, wide, act=act)]
        parts += [SqueezeExcite(wide, gate)] if gate is not None else []
        self.conv = nn.Sequential(*parts, nn.Conv2d(wide, outside, 1, bias=False), nn.BatchNorm2d(outside))
        self.shortcut = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def mobile(act: type, gate: nn.Module | None = None) -> nn.Module:
    blocks = [InvertedResidual(8, 12, 2, act, gate), InvertedResidual(12, 12, 1, act, gate)]
    return Classifier(nn.Sequential(conv_bn(3, 8, 3, 2, act=act), *blocks), 12)


class ShuffleNetV1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze = conv_bn(3, 12, 3, 2), conv_bn(12, 12, 1, groups=3)
        self.depthwise = nn.Sequential(nn.Conv2d(12, 12, 3, 2, 1, groups=12, bias=False), nn.BatchNorm2d(12))
        self.expand = nn.Sequential(nn.Conv2d(12, 12, 1, groups=3, bias=False), nn.BatchNorm2d(12))
        self.pool = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.squeeze(x)
        n, c, h, w = y.shape
        y = y.view(n, 3, c // 3, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return F.relu(torch.cat((self.pool(x), self.expand(self.depthwise(y))), 1))


class ShuffleNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3, 2)
        self.branch = nn.Sequential(conv_bn(8, 8, 1), conv_bn(8, 8, 3, 1, 8, nn.Identity), conv_bn(8, 8, 1))
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        return self.shuffle(torch.cat([left, self.branch(right)], 1))


class CondensedShuffle(nn.Module):
    """Channels rearranged by a stored index, as CondenseNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = conv_bn(3, 8, 3, 2), conv_bn(8, 8, 1, groups=4)
        self.register_buffer("index", torch.tensor([3, 0, 7, 1, 6, 2, 5, 4]))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.index_select(self.stem(x), 1, self.index))


class DenseNet(nn.Module):
    """Batch norm and ReLU before every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        layers = [
            nn.Sequential(nn.BatchNorm2d(8 + 4 * i), nn.ReLU(), nn.Conv2d(8 + 4 * i, 4, 3, 1, 1)) for i in range(2)
        ]
        self.layers = nn.ModuleList(layers)
        self.transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2, 2))
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.stem(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return F.relu(self.norm(self.transition(torch.cat(found, 1))), inplace=True)


class Vgg(nn.Module):
    """Convolutions with bias, a flattened map, a head with a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        convs = [
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(True),
        ]
        self.features, self.pool = nn.Sequential(*convs), nn.AdaptiveAvgPool2d((2, 2))
        head = [nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10), nn.BatchNorm1d(10)]
        self.classifier = nn.Sequential(*head)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.one = conv_bn(8, 4, 1)
        self.seven = nn.Sequential(nn.Conv2d(8, 4, (1, 7), padding=(0, 3)), nn.Conv2d(4, 4, (7, 1), padding=(3, 0)))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        average = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        return torch.cat([self.one(x), F.relu(self.seven(x)), self.pooled(x), average], dim=1)


class RepVgg(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.three, self.one = (
            conv_bn(3, 8, 3, 2),
            conv_bn(8, 8, act=nn.Identity),
            conv_bn(8, 8, 1, act=nn.Identity),
        )
        self.identity = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            x = F.relu(self.three(x) + self.one(x) + self.identity(x))
        return x


class Ghost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.primary, self.cheap = conv_bn(3, 6, 3, 2), conv_bn(6, 6, groups=6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)[:, :10]


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(3, 8), conv_bn(8, 16, stride=2), conv_bn(16, 16, stride=2)
        self.up, self.mix = nn.ConvTranspose2d(16, 16, 2, 2), conv_bn(32, 8)
        self.upsample, self.last = nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a)
        c = self.up(self.c(b))
        return self.last(torch.cat([a, self.upsample(self.mix(torch.cat([b, c], 1)))], 1))


class ConvNext(nn.Module):
    """Large depthwise kernels, GELU, a layer scale; batch norm in the place of layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8)
        self.depthwise, self.gamma = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.Parameter(torch.full((8, 1, 1), 0.5))
        self.wide, self.narrow = nn.Conv2d(8, 24, 1), nn.Conv2d(24, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.gamma * self.narrow(F.gelu(self.wide(self.norm(self.depthwise(x)))))


class Dilated(nn.Module):
    """Parallel dilated convolutions and a pooled branch, as in DeepLab's head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.branches = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = F.interpolate(self.pooled(x), size=x.shape[-2:], mode="nearest")
        return torch.cat([*(F.relu(branch(x)) for branch in self.branches), pooled], 1)


class Fire(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 4, 1)
        self.one, self.three = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, ceil_mode=True)
        x = self.squeeze(x).relu()
        x = torch.cat([self.one(x).relu(), self.three(x).relu_()], 1)
        return self.last(x).relu().mean([-2, -1])


class SelectiveKernel(nn.Module):
    """Two stacked branches, summed, and the channels' gates of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.small, self.large = conv_bn(3, 8, 3, 2), conv_bn(8, 8), conv_bn(8, 8, 5)
        self.fc = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        both = torch.stack([self.small(x), self.large(x)], dim=1)
        gates = torch.sigmoid(self.fc(both.sum(dim=1).mean((2, 3)))).view(-1, 2, 8, 1, 1)
        a, b = gates.unbind(1)
        return both[:, 0] * a + both[:, 1] * b


class SpatialAttention(nn.Module):
    """Channel mean and maximum, as in CBAM; the map is expanded, as in BAM."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = conv_bn(3, 8, 3, 2), nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(self.conv(pooled)).expand_as(x)


class PReluFace(nn.Module):
    """PReLU, a global depthwise convolution and an embedding, as in face recognition."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.globally = nn.Sequential(nn.Conv2d(8, 8, 16, groups=8, bias=False), nn.BatchNorm2d(8))
        self.embed, self.norm = nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.embed(self.globally(self.body(x)).flatten(1)))


class TransformerFree(nn.Module):
    """Tokens and back: permutations, a linear layer over channels, a constant added."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.mix, self.position = (
            nn.Conv2d(3, 8, 8, 8),
            nn.Linear(8, 8),
            nn.Parameter(torch.randn(1, 16, 8) / 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        n, c, h, w = x.shape
        tokens = x.flatten(2).permute(0, 2, 1) + self.position
        tokens = tokens + F.hardtanh(self.mix(tokens))
        return tokens.transpose(1, 2).reshape(n, c, h, w)


class AnySizeVgg(nn.Module):
    """A head for 3x3 maps behind whatever the image's size leaves: here 4x4, pooled to 3x3 with overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Sequential(conv_bn(3, 8, 3, 2), nn.MaxPool2d(4)), nn.Linear(72, 10)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(self.features(x), (3, 3))
        smaller = F.adaptive_avg_pool2d(F.max_pool2d(self.features(x), 2), (3, 3))
        return self.head((pooled + smaller).flatten(1))


class ChannelAttention(nn.Module):
    """A convolution along the channels, as in ECA; a factor on the residual branch, as in networks without norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.body = conv_bn(3, 8, 3, 2), nn.Conv1d(1, 1, 3, padding=1, bias=False), conv_bn(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(x)
        gate = self.conv(y.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid().view(x.shape[0], -1, 1, 1)
        return F.relu(y * gate.expand_as(y) * 0.2 + x)


class BlurPool(nn.Module):
    """A fixed, reflected low-pass before each stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv_bn(3, 8), conv_bn(8, 8)
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filter", torch.outer(line, line).expand(8, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem(x), (1, 1, 1, 1), mode="reflect")
        return self.last(F.conv2d(x, self.filter, stride=2, groups=8))


class Nasnet(nn.Module):
    """The shifted branch of a factorized reduction: padded on one side, cut off on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other = conv_bn(3, 8, 3, 2), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        straight = self.one(F.avg_pool2d(x, 1, 2))
        shifted = self.other(F.avg_pool2d(F.pad(x, (-1, 1, -1, 1)), 1, 2))
        return torch.cat([straight, shifted], 1)


class Decoder(nn.Module):
    """Transposed convolutions of stride 1 and 2, channels made to pixels, a map of zeros beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3, 4)
        self.same, self.up = nn.ConvTranspose2d(16, 16, 3, 1, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1)
        self.shuffle, self.last = nn.PixelShuffle(2), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.shuffle(F.relu(self.same(self.stem(x)))))
        return self.last(torch.cat([x, torch.zeros_like(x)], 1))


class SpaceToDepth(nn.Module):
    """The stem of TResNet: 4x4 pixels become channels, by a permutation of six dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn(48, 8)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 3, 5, 1, 2, 4).contiguous()
        return self.conv(x.view(n, c * 16, h // 4, w // 4))


def resnet() -> nn.Module:
    """Blocks begin as identities: the last batch norm's weight is zero until it is trained."""
    blocks = (ResidualBlock(8, 8), ResidualBlock(8, 16, 2))
    nn.init.zeros_(blocks[0].bn2.weight)
    return Classifier(nn.Sequential(conv_bn(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1), *blocks), 16)


def resnext() -> nn.Module:
    return Classifier(nn.Sequential(conv_bn(3, 8, 3, 2), ResidualBlock(8, 16, 2, 4)), 16)


def mobilenet_v1() -> nn.Module:
    return Classifier(nn.Sequential(conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3, 2, 8), conv_bn(8, 16, 1)), 16)


def regnet_y() -> nn.Module:
    gate = SqueezeExcite(16, nn.Sigmoid(), conv=False)
    return Classifier(nn.Sequential(conv_bn(3, 8, 3, 2), ResidualBlock(8, 16, 2, 2), gate), 16)


FAMILIES = {
    "resnet": resnet,
    "resnext": resnext,
    "cifar resnet": PaddedShortcut,
    "mobilenet v1": mobilenet_v1,
    "mobilenet v2": lambda: mobile(nn.ReLU6),
    "mobilenet v3": lambda: mobile(nn.Hardswish, nn.Hardsigmoid()),
    "efficientnet": lambda: mobile(nn.SiLU, nn.Sigmoid()),
    "regnet y": regnet_y,
    "shufflenet v1": ShuffleNetV1,
    "shufflenet v2": ShuffleNetV2,
    "condensenet": CondensedShuffle,
    "densenet": DenseNet,
    "vgg": Vgg,
    "inception": Inception,
    "repvgg": RepVgg,
    "ghostnet": Ghost,
    "unet": UNet,
    "convnext": ConvNext,
    "deeplab": Dilated,
    "squeezenet": Fire,
    "sknet": SelectiveKernel,
    "cbam": SpatialAttention,
    "mobilefacenet": PReluFace,
    "mixer": TransformerFree,
    "vgg at another size": AnySizeVgg,
    "eca": ChannelAttention,
    "blurpool": BlurPool,
    "nasnet": Nasnet,
    "decoder": Decoder,
    "tresnet": SpaceToDepth,
}
