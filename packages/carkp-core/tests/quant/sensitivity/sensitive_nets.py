"""A small depthwise network, whole and broken on purpose, and findings made by hand."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from exact_networks import calibrated
from torch import Tensor, nn

from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.sensitivity.findings import LayerFindings
from carkp_core.quant.sensitivity.histogram import histogram_of


class DepthwiseNet(nn.Module):
    """Two depthwise and pointwise convolutions, a residual, a pooling that rounds nothing, a table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = nn.Conv2d(16, 16, 1)
        self.depthwise2 = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project2 = nn.Conv2d(16, 8, 1)
        self.head = nn.ConvTranspose2d(8, 2, 4, 2, 1)
        for layer in self.children():
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, 0.0, 0.1)
        with torch.no_grad():
            self.head.weight *= 0.3

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.project(F.relu(self.depthwise(x)))
        x = F.max_pool2d(x, 2)
        return torch.tanh(self.head(self.project2(F.relu(self.depthwise2(x)))))


def images(count: int = 8, seed: int = 0) -> Tensor:
    """[N, 3, 8, 8], in steps of 1/128."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, (count, 3, 8, 8), generator=generator) / 128


def healthy() -> QuantizedNetwork:
    """The network, calibrated."""
    return calibrated(DepthwiseNet(), images(), input_scales={"img": 1 / 128})


def broken(*names: str, factor: float = 50.0) -> QuantizedNetwork:
    """Three channels of each named depthwise layer times ``factor``, undone in the layer that reads them."""
    net = DepthwiseNet()
    readers = {"depthwise": net.project, "depthwise2": net.project2}
    with torch.no_grad():
        for name in names:
            layer: Any = getattr(net, name)
            for channel in (1, 5, 9):
                layer.weight[channel] *= factor
                layer.bias[channel] *= factor
                readers[name].weight[:, channel] /= factor
    return calibrated(net, images(), input_scales={"img": 1 / 128})


def layer_findings(**changes: Any) -> LayerFindings:
    """A healthy layer, but for ``changes``."""
    plain: dict[str, Any] = {
        "index": 0, "name": "block.conv", "op": "conv2d", "source": "block.conv (net.py:3)",
        "module_path": "block.conv",
        "dtype": "int8", "scale": 1 / 127, "threshold": 1.0, "observer": "percentile", "offers": (), "repairs": (),
        "elements": 100, "low": -1.0, "high": 1.0, "clipping": 0.0, "utilisation": 1.0, "entropy_bits": 6.0,
        "weights_db": 45.0, "output_db": 35.0, "alone_db": 34.5, "accumulated_db": 30.0, "network_alone_db": 40.0,
        "network_without_db": 25.0, "share": 0.1, "metrics_alone": {}, "metrics_without": {}, "loss_alone": math.nan,
        "gain_without": math.nan, "loss_error": math.nan, "channel_imbalance": 2.0, "output_equalized_db": 3.0,
        "weights_equalized_db": 2.0, "candidates": (), "histogram": histogram_of(torch.ones(1), 1.0),
    }  # fmt: skip
    return LayerFindings(**(plain | changes))
