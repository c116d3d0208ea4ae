"""Calibrate a small network, convert it, and count where it and its integer model differ."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare


class Everything(nn.Module):
    """Every operator, in module, functional and method form."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8, dilation=1)
        self.dilated = nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=2)
        self.project = nn.Conv2d(8, 8, 1)
        self.up = nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2, bias=False)
        self.up_bn = nn.BatchNorm2d(6)
        self.odd = nn.ConvTranspose2d(6, 8, 3, 2, 1, output_padding=1)
        self.prelu = nn.PReLU(8, init=0.3)
        self.gamma = nn.Parameter(torch.randn(8, 1, 1))
        self.position = nn.Parameter(torch.randn(1, 8, 8, 8))
        self.fc1, self.fc2 = nn.Linear(8, 5), nn.Linear(8, 8)
        self.activations = nn.ModuleList(
            [nn.SiLU(), nn.Hardswish(), nn.GELU(), nn.Hardsigmoid(), nn.LeakyReLU(0.2), nn.ELU(), nn.Mish(), nn.Tanh()]
        )
        for norm in (self.first, self.bn, self.up_bn):
            nn.init.uniform_(norm.weight, -1, 2)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.2, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = self.first(x)
        x = F.relu(self.bn(self.stem(x)), inplace=True)
        y = self.project(F.relu6(self.depthwise(x)))
        x = torch.relu(x + y)
        x = x - self.dilated(x)
        x = (self.prelu(x) * self.gamma + self.position).clamp(-2, 3)
        gate = x.mean((2, 3), keepdim=True)
        x = x * torch.sigmoid(self.project(gate))
        for activation in self.activations:
            x = activation(x) + 0.1 * x
        a, b = x.chunk(2, dim=1)
        x = torch.cat([b, a * 2 - 1, x[:, ::2]], dim=1)[:, :8]
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)
        pooled = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        averaged = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        included = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)
        small = torch.stack([pooled, averaged, included], dim=1).mean(dim=-1).flatten(1)
        nearest = F.interpolate(pooled, scale_factor=2, mode="nearest")[..., :h, :w]
        bilinear = F.interpolate(averaged, size=(h, w), mode="bilinear", align_corners=False)
        corners = F.interpolate(included, size=(h, w), mode="bilinear", align_corners=True)
        x = 1 - (nearest + bilinear - corners) / 3
        x = F.pad(x, (1, 0, 0, 1), value=0.5)[:, :, 1:, :-1]
        tokens = self.fc2(x.flatten(2).permute(0, 2, 1)).relu().transpose(1, 2).unflatten(2, (h, w))
        heat = self.odd(F.relu(self.up_bn(self.up(tokens))))
        logits = self.fc1(F.adaptive_avg_pool2d(x, 1).flatten(1))
        shuffled = F.pixel_shuffle(x, 2) + x.amax((2, 3)).unsqueeze(-1).unsqueeze(-1)[:, :2]
        return {"heat": heat, "rest": [logits, small, (shuffled, -x.square().sqrt())]}


def calibrated(net: nn.Module, x: Tensor, dtypes: dict[str, str] | None = None, **kwargs: Any) -> QuantizedNetwork:
    """A network prepared for the first sample of ``x`` and calibrated with all of it."""
    network = prepare(net.eval(), {"img": x[:1]}, **kwargs).eval()
    for name, dtype in (dtypes or {}).items():
        network.layer(name).dtype = dtype
    network.start_observing()
    network(x)
    network.finish_observing()
    return network


def differing(network: QuantizedNetwork, graph: Graph, x: Tensor) -> dict[str, int]:
    """Differing elements of every tensor."""
    names = [node.name for node in graph.nodes]
    declared = graph.inputs[0].type
    integers = quantize(x.numpy(), declared.scale, declared.dtype)
    expected = reference.execute(graph, {"img": integers}, names)
    with torch.no_grad():
        got = network.integer_values([x], names)
    counts = {name: int((got[name].values.numpy() != expected[name]).sum()) for name in names}
    return {name: count for name, count in counts.items() if count}


def assert_exact(net: nn.Module, x: Tensor, **kwargs: Any) -> Graph:
    """The integer model, once every tensor of it equals the calibrated network's, on values beyond the calibrated."""
    network = calibrated(net, x, **kwargs)
    graph = convert(network, "net")
    assert differing(network, graph, x * 1.3) == {}
    return graph
