"""Networks of the published frame rates as integer models, so that the very programs can be timed.

Those of ``perf.networks``, with their sums and concatenations; weights are random, since only shapes count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from carkp_bpu.compiler.samples import NetworkBuilder, efficientnet_keypoints
from carkp_bpu.perf.networks import INCEPTIONS
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph

SIZE = 224
IMAGE = (1, 3, SIZE, SIZE)


def _classified(net: NetworkBuilder) -> Graph:
    _, _, height, width = net.shape()
    net.avg_pool((height, width), (1, 1))
    net.conv(1000)
    return net.graph()


def _depthwise(net: NetworkBuilder, stride: int) -> None:
    net.conv(net.shape()[1], 3, stride, groups=net.shape()[1], padding_tlbr=(1, 1, 1, 1))


def mobilenet_v1() -> Graph:
    net = NetworkBuilder(IMAGE)
    net.conv(32, 3, 2)
    for filters, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2)]:
        _depthwise(net, stride)
        net.conv(filters)
    _depthwise(net, 1)
    net.conv(1024)
    return _classified(net)


def mobilenet_v2() -> Graph:
    net = NetworkBuilder(IMAGE)
    net.conv(32, 3, 2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, filters, repeats, first in stages:
        for index in range(repeats):
            entering, stride = net.last, first if index == 0 else 1
            if expand > 1:
                net.conv(net.shape()[1] * expand)
            _depthwise(net, stride)
            net.conv(filters, lo=-128, residual=entering if index else None)
    net.conv(1280)
    return _classified(net)


def resnet18() -> Graph:
    net = NetworkBuilder(IMAGE)
    net.conv(64, 7, 2, padding_tlbr=(3, 3, 3, 3))
    net.add(ops.MaxPool((3, 3), (2, 2), (1, 1, 1, 1)))
    for filters, stride in [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)]:
        entering = net.last
        short = net.conv(filters, 1, 2, lo=-128) if stride == 2 else entering
        net.conv(filters, 3, stride, source=entering)
        net.conv(filters, 3, residual=short)
    return _classified(net)


def repvgg(repeats: tuple[int, ...], widths: tuple[int, ...]) -> Graph:
    net = NetworkBuilder(IMAGE)
    net.conv(min(64, widths[0]), 3, 2)
    for count, filters in zip(repeats, widths, strict=True):
        for index in range(count):
            net.conv(filters, 3, 2 if index == 0 else 1)
    return _classified(net)


def _squeeze_excite(net: NetworkBuilder, hidden: int) -> None:
    """Pool, two small layers, a table, a product."""
    entering, (_, channels, height, width) = net.last, net.shape()
    net.avg_pool((height, width), (1, 1))
    net.conv(hidden)
    net.conv(channels)
    net.mul(entering, net.table())


def mobileone(widths: tuple[int, ...], squeeze_from: tuple[int, ...] = (99, 99, 99, 99)) -> Graph:
    net = NetworkBuilder(IMAGE)
    net.conv(min(64, widths[0]), 3, 2)
    for count, filters, squeezed in zip((2, 8, 10, 1), widths, squeeze_from, strict=True):
        for index in range(count):
            _depthwise(net, 2 if index == 0 else 1)
            if index >= squeezed:
                _squeeze_excite(net, net.shape()[1] // 16)
            net.conv(filters)
            if index >= squeezed:
                _squeeze_excite(net, filters // 16)
    return _classified(net)


def fasternet(width: int) -> Graph:
    net = NetworkBuilder(IMAGE)
    net.conv(width, 4, 4, padding_tlbr=(0, 0, 0, 0))
    for stage, count in enumerate((1, 2, 8, 2)):
        if stage:
            net.conv(2 * net.shape()[1], 2, 2, padding_tlbr=(0, 0, 0, 0))
        for _ in range(count):
            entering, channels = net.last, net.shape()[1]
            rest = net.add(ops.Slice(1, channels // 4, channels, 1), entering)
            net.add(ops.Slice(1, 0, channels // 4, 1), entering)
            net.concat(1, net.conv(channels // 4, 3, lo=-128), rest)
            net.conv(2 * channels)
            net.conv(channels, lo=-128, residual=entering)
    _, _, height, size = net.shape()
    net.avg_pool((height, size), (1, 1))
    net.conv(1280)
    net.conv(1000)
    return net.graph()


def efficientnet_b2() -> Graph:
    stages = [
        (1, 16, 2, 1, 3), (6, 24, 3, 2, 3), (6, 48, 3, 2, 5), (6, 88, 4, 2, 3), (6, 120, 4, 1, 5), (6, 208, 5, 2, 5),
        (6, 352, 2, 1, 3),
    ]  # fmt: skip
    net = NetworkBuilder(IMAGE)
    net.conv(32, 3, 2)
    for expand, filters, repeats, first, kernel in stages:
        for index in range(repeats):
            entering, channels, stride = net.last, net.shape()[1], first if index == 0 else 1
            if expand > 1:
                net.conv(channels * expand)
            half = kernel // 2
            net.conv(net.shape()[1], kernel, stride, groups=net.shape()[1], padding_tlbr=(half,) * 4)
            _squeeze_excite(net, max(1, channels // 4))
            net.conv(filters, lo=-128, residual=entering if index else None)
    net.conv(1408)
    return _classified(net)


def googlenet() -> Graph:
    net = NetworkBuilder(IMAGE)
    halving = ops.MaxPool((3, 3), (2, 2), (1, 1, 1, 1))
    net.conv(64, 7, 2, padding_tlbr=(3, 3, 3, 3))
    net.add(halving)
    net.conv(64)
    net.conv(192, 3)
    net.add(halving)
    for index, (plain, reduce3, out3, reduce5, out5, pooled) in enumerate(INCEPTIONS):
        if index in (2, 7):
            net.add(halving)
        entering = net.last
        branches = [net.conv(plain, source=entering)]
        for reduced, outputs in ((reduce3, out3), (reduce5, out5)):
            net.conv(reduced, source=entering)
            branches.append(net.conv(outputs, 3))
        net.add(ops.MaxPool((3, 3), (1, 1), (1, 1, 1, 1)), entering)
        branches.append(net.conv(pooled))
        net.concat(1, *branches)
    return _classified(net)


GRAPHS: Mapping[str, Callable[[], Graph]] = {
    "MobileNetV1": mobilenet_v1,
    "MobileNetV2": mobilenet_v2,
    "ResNet18": resnet18,
    "MobileOne-S0": partial(mobileone, (48, 128, 256, 1024)),
    "MobileOne-S2": partial(mobileone, (96, 256, 640, 2048)),
    "MobileOne-S4": partial(mobileone, (192, 448, 896, 2048), (99, 99, 5, 0)),
    "FasterNet-T0": partial(fasternet, 40),
    "FasterNet-T2": partial(fasternet, 96),
    "EfficientNet-B2": efficientnet_b2,
    "GoogLeNet": googlenet,
    "RepVGG-A0": partial(repvgg, (2, 4, 14, 1), (48, 96, 192, 1280)),
    "RepVGG-A2": partial(repvgg, (2, 4, 14, 1), (96, 192, 384, 1408)),
    "EfficientNet-B0 keypoints": partial(efficientnet_keypoints, 128),
}
