"""Layer lists of the networks whose frame rates are published: what the fit of the performance model needs.

Only shapes matter, so a network is a short function over a ``Sketch`` that follows the map's size and channels.
"""

from __future__ import annotations

from collections.abc import Callable

from carkp_bpu.perf.cost import ConvWork
from carkp_bpu.perf.layers import PARAMETER_BYTES, Layer


class Sketch:
    """A network under construction: a current map of ``channels`` x ``size`` x ``size``, and the layers so far."""

    def __init__(self, size: int, channels: int = 3) -> None:
        self.size, self.channels = size, channels
        self.layers: list[Layer] = []

    @property
    def _bytes(self) -> int:
        return self.size * self.size * self.channels

    def _append(self, kind: str, before: int, conv: ConvWork | None = None, filters: int = 0) -> None:
        weights = conv.kernel_area * conv.depth * conv.filters * conv.groups if conv else 0
        constants = weights + filters * PARAMETER_BYTES
        self.layers.append(Layer(f"{kind}_{len(self.layers)}", kind, conv, constants, before, self._bytes))

    def conv(self, filters: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        """A convolution with "same" padding."""
        before, depth = self._bytes, self.channels // groups
        self.size, self.channels = -(-self.size // stride), filters
        work = ConvWork(
            self.size, self.size, kernel * kernel, depth, filters // groups, groups, feature_bytes=before + self._bytes
        )
        self._append("conv2d", before, work, filters)

    def depthwise(self, kernel: int = 3, stride: int = 1) -> None:
        """One filter to a channel."""
        self.conv(self.channels, kernel, stride, self.channels)

    def deconv(self, filters: int, kernel: int = 4, stride: int = 2) -> None:
        """A transposed convolution that enlarges by its stride."""
        before, depth, size = self._bytes, self.channels, self.size
        self.size, self.channels = self.size * stride, filters
        work = ConvWork(size, size, kernel * kernel, depth, filters, feature_bytes=before + self._bytes)
        self._append("conv_transpose2d", before, work, filters)

    def pool(self, kernel: int = 3, stride: int = 2) -> None:
        """Max or average pooling."""
        self.size = -(-self.size // stride)
        self._append("max_pool", kernel * kernel * self._bytes)

    def elementwise(self) -> None:
        """An add, a mul or a table over the current map."""
        self._append("add", 2 * self._bytes)

    def squeeze_excite(self, hidden: int) -> None:
        """Pool, two fully connected layers, scale."""
        size, channels = self.size, self.channels
        self.head_pool()
        self.conv(hidden)
        self.conv(channels)
        self.size = size
        self.elementwise()

    def partial_conv(self, channels: int) -> None:
        """A 3x3 convolution of the first ``channels``; the others pass by."""
        whole = self.channels
        self.channels = channels
        self.conv(channels, 3)
        self.channels = whole

    def head_pool(self) -> None:
        """Global average pooling."""
        before, self.size = self._bytes, 1
        self._append("avg_pool", before)

    def classifier(self, classes: int = 1000) -> list[Layer]:
        """Global pooling, a fully connected layer, and the whole list."""
        self.head_pool()
        self.conv(classes)
        return self.layers


def mobilenet_v1() -> list[Layer]:
    net = Sketch(224)
    net.conv(32, 3, 2)
    for filters, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2)]:
        net.depthwise(3, stride)
        net.conv(filters)
    net.depthwise()
    net.conv(1024)
    return net.classifier()


def _inverted_residual(net: Sketch, filters: int, kernel: int, stride: int, expand: int, squeeze: bool) -> None:
    entering = net.channels
    if expand > 1:
        net.conv(net.channels * expand)
    net.depthwise(kernel, stride)
    if squeeze:
        net.squeeze_excite(max(1, entering // 4))
    net.conv(filters)


def mobilenet_v2() -> list[Layer]:
    net = Sketch(224)
    net.conv(32, 3, 2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, filters, repeats, stride in stages:
        for index in range(repeats):
            _inverted_residual(net, filters, 3, stride if index == 0 else 1, expand, squeeze=False)
    net.conv(1280)
    return net.classifier()


def resnet18() -> list[Layer]:
    net = Sketch(224)
    net.conv(64, 7, 2)
    net.pool()
    for filters, stride in [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]:
        if stride == 2:
            size, channels = net.size, net.channels
            net.conv(filters, 1, 2)
            net.size, net.channels = size, channels
        net.conv(filters, 3, stride)
        net.conv(filters, 3)
    return net.classifier()


def repvgg(repeats: tuple[int, ...], widths: tuple[int, ...]) -> list[Layer]:
    net = Sketch(224)
    net.conv(min(64, widths[0]), 3, 2)
    for count, filters in zip(repeats, widths, strict=True):
        for index in range(count):
            net.conv(filters, 3, 2 if index == 0 else 1)
    return net.classifier()


def mobileone(widths: tuple[int, ...], squeeze_from: tuple[int, ...] = (99, 99, 99, 99)) -> list[Layer]:
    net = Sketch(224)
    net.conv(min(64, widths[0]), 3, 2)
    for count, filters, squeezed in zip((2, 8, 10, 1), widths, squeeze_from, strict=True):
        for index in range(count):
            for kernel, stride in ((3, 2 if index == 0 else 1), (1, 1)):
                net.depthwise(3, stride) if kernel == 3 else net.conv(filters)
                if index >= squeezed:
                    net.squeeze_excite(net.channels // 16)
    return net.classifier()


def fasternet(width: int, repeats: tuple[int, ...] = (1, 2, 8, 2)) -> list[Layer]:
    net = Sketch(224)
    net.conv(width, 4, 4)
    for stage, count in enumerate(repeats):
        if stage:
            net.conv(2 * net.channels, 2, 2)
        for _ in range(count):
            channels = net.channels
            net.partial_conv(channels // 4)
            net.conv(2 * channels)
            net.conv(channels)
    net.head_pool()
    net.conv(1280)
    net.conv(1000)
    return net.layers


_EFFICIENTNET = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def _efficientnet_trunk(net: Sketch, width: float, depth: float, squeeze: bool) -> None:
    net.conv(_round_channels(32 * width), 3, 2)
    for expand, filters, repeats, stride, kernel in _EFFICIENTNET:
        for index in range(-int(-repeats * depth // 1)):
            first = stride if index == 0 else 1
            _inverted_residual(net, _round_channels(filters * width), kernel, first, expand, squeeze)


def efficientnet_b2() -> list[Layer]:
    net = Sketch(224)
    _efficientnet_trunk(net, 1.1, 1.2, squeeze=True)
    net.conv(_round_channels(1280 * 1.1))
    return net.classifier()


def keypoint_network() -> list[Layer]:
    net = Sketch(128)
    _efficientnet_trunk(net, 1.0, 1.0, squeeze=False)
    for _ in range(3):
        net.deconv(128)
    net.conv(12, 3)
    return net.layers


#: GoogLeNet's blocks: channels of the 1x1 branch, before and in the 3x3 and the 5x5 branch, behind the pool.
INCEPTIONS = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def googlenet() -> list[Layer]:
    net = Sketch(224)
    net.conv(64, 7, 2)
    net.pool()
    net.conv(64)
    net.conv(192, 3)
    net.pool()
    for index, (plain, reduce3, out3, reduce5, out5, pooled) in enumerate(INCEPTIONS):
        if index in (2, 7):
            net.pool()
        entering = net.channels
        for branch in (((plain, 1),), ((reduce3, 1), (out3, 3)), ((reduce5, 1), (out5, 3))):
            net.channels = entering
            for filters, kernel in branch:
                net.conv(filters, kernel)
        net.channels = entering
        net.pool(3, 1)
        net.conv(pooled)
        net.channels = plain + out3 + out5 + pooled
    return net.classifier()


def _round_channels(value: float) -> int:
    """To a multiple of 8, not more than a tenth down."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


NETWORKS: dict[str, Callable[[], list[Layer]]] = {
    "MobileNetV1": mobilenet_v1,
    "MobileNetV2": mobilenet_v2,
    "ResNet18": resnet18,
    "GoogLeNet": googlenet,
    "MobileOne-S0": lambda: mobileone((48, 128, 256, 1024)),
    "MobileOne-S2": lambda: mobileone((96, 256, 640, 2048)),
    "MobileOne-S4": lambda: mobileone((192, 448, 896, 2048), (99, 99, 5, 0)),
    "RepVGG-A0": lambda: repvgg((2, 4, 14, 1), (48, 96, 192, 1280)),
    "RepVGG-A2": lambda: repvgg((2, 4, 14, 1), (96, 192, 384, 1408)),
    "FasterNet-T0": lambda: fasternet(40),
    "FasterNet-T2": lambda: fasternet(96),
    "EfficientNet-B2": efficientnet_b2,
    "EfficientNet-B0 keypoints": keypoint_network,
}
