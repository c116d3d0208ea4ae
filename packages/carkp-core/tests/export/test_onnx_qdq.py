"""The QDQ export against the integer model: layer by layer, and at its ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.errors import ConfigError, GraphError
from carkp_core.export.onnx_qdq import export_qdq
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import convert
from carkp_core.quant.fast import fast_graph
from carkp_core.quant.prepare import prepare

torch.set_num_threads(1)


class Net(nn.Module):
    """Every operator whose QDQ form differs from the next one's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.prelu = nn.PReLU(8, init=0.2)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.grouped_up = nn.ConvTranspose2d(8, 4, 2, 2, groups=2)
        self.position = nn.Parameter(torch.randn(1, 8, 8, 8))

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x = F.relu6(x + self.depthwise(x))
        x = self.prelu(x - self.position) * torch.sigmoid(x.mean((2, 3), keepdim=True))
        y = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        y = F.interpolate(y, size=(8, 8), mode="bilinear") - F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
        y = F.pad(torch.cat([y, F.silu(x)], 1)[:, ::2], (1, 1, 0, 0), value=0.3).clamp(-0.5, 0.7).transpose(2, 3)
        return self.up(x) + self.grouped_up(x * 0.37), y.flatten(1) / 3


def integer_model(dtype: str = "int8") -> tuple[Graph, Tensor]:
    torch.manual_seed(0)
    net, x = (
        (Net() if dtype == "int8" else nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AvgPool2d(2))),
        torch.randn(4, 3, 16, 16),
    )
    network = prepare(net.eval(), {"img": x[:1]}).eval()
    for step in network.steps:
        network.layer(step.name).dtype = dtype
    network.start_observing()
    network(x)
    network.finish_observing()
    return convert(network, "net"), x


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_the_ends_agree_but_for_ties(dtype: str) -> None:
    graph, x = integer_model(dtype)
    model = export_qdq(graph)
    assert model.opset_import[0].version == (13 if dtype == "int8" else 21)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    declared = graph.inputs[0].type
    for image in x:
        floats = image[None].numpy()
        expected = reference.execute(graph, {"img": quantize(floats, declared.scale, declared.dtype)})
        for name, got in zip(graph.outputs, session.run(None, {"img": floats}), strict=True):
            steps = got / np.float32(graph.types()[name].scale) - expected[name]
            assert np.abs(steps).max() < 2.5
            assert (np.abs(steps) > 0.5).mean() < 0.02


def test_wrong_opsets_and_opaque_nodes_are_refused() -> None:
    graph, _ = integer_model("int16")
    with pytest.raises(ConfigError, match="21 to 21"):
        export_qdq(graph, opset=17)
    opaque = fast_graph(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Softmax(1)), {"img": torch.randn(1, 3, 4, 4)})
    with pytest.raises(GraphError, match="'opaque' has no ONNX form"):
        export_qdq(opaque)
