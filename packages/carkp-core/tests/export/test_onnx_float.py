"""The float ONNX equals the torch network in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.export.onnx_builder import save
from carkp_core.export.onnx_float import export_float

torch.set_num_threads(1)


def run(model: onnx.ModelProto, x: Tensor) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"img": x.numpy()}))


class Mixed(nn.Module):
    """Layers, pools, resizes, moves and every scalar function that ONNX has a form for."""

    def __init__(self) -> None:
        super().__init__()
        self.lone = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, groups=1)
        self.grouped = nn.Conv2d(8, 8, (3, 5), padding="same", groups=8)
        self.bn = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2)
        self.prelu = nn.PReLU(8)
        self.fc = nn.Linear(8, 3)
        self.position = nn.Parameter(torch.randn(1, 8, 8, 8))
        for norm in (self.lone, self.bn):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv(self.lone(x)))
        x = F.relu6(x + self.bn(self.grouped(x))) - self.grouped(x)
        x = self.prelu(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)) + self.position
        functions = [
            torch.tanh, F.silu, F.hardswish, F.hardsigmoid, F.gelu, F.elu, F.celu, F.selu, F.mish, F.softplus,
            F.softsign, F.logsigmoid, F.tanhshrink, F.hardshrink, F.softshrink, F.leaky_relu, torch.abs, torch.exp,
            torch.erf, torch.sin, torch.cos, torch.sign, torch.expm1, torch.square,
            lambda t: F.gelu(t, approximate="tanh"), lambda t: F.threshold(t, 0.1, 0.5), lambda t: t.clamp(-1, 0.5),
            lambda t: 1 - t, lambda t: t / 3, lambda t: 2 / (t.square() + 1), lambda t: (t.abs() + 1).sqrt(),
            lambda t: (t.abs() + 1).rsqrt(), lambda t: (t.abs() + 1).log(), lambda t: t.abs().log1p(),
            lambda t: (t.abs() + 0.5) ** 1.5, lambda t: F.softplus(t, beta=2.0), lambda t: (t.abs() + 1).reciprocal(),
        ]  # fmt: skip
        wave = torch.stack([function(x[:, :2].clamp(-3, 3)) for function in functions], dim=1)
        pooled = [
            F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            F.avg_pool2d(x, 2, divisor_override=3),
        ]
        sized = [
            F.interpolate(p, size=x.shape[2:], mode="bilinear", align_corners=a % 2 == 0) for a, p in enumerate(pooled)
        ]
        y = F.pad(torch.cat(sized, 1)[:, ::4], (1, 0, 0, 2), value=0.5)
        near = F.interpolate(x, scale_factor=2)
        return {
            "heat": self.up(x),
            "rest": [self.fc(x.amax((2, 3))), F.pixel_shuffle(y[:, :4], 2), near, wave.flatten(1, 2)],
        }


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_equals_torch_in_onnx_runtime(opset: int) -> None:
    torch.manual_seed(0)
    net, x = Mixed().eval(), torch.randn(1, 3, 16, 16)
    model = export_float(net, {"img": x}, opset=opset)
    assert model.opset_import[0].version == opset
    with torch.no_grad():
        expected = tree_flatten(net(x))[0]
    got = run(model, x)
    assert len(got) == len(expected) == 5
    for a, b in zip(got, expected, strict=True):
        assert a.shape == tuple(b.shape)
        assert np.abs(a - b.numpy()).max() < 1e-4


def test_outputs_can_be_named_and_the_file_is_whole(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    model = export_float(net, {"img": torch.randn(1, 3, 4, 4)}, name="tiny", output_names=("heatmap",))
    save(model, tmp_path / "deep" / "tiny.onnx")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["tiny.onnx"]
    read = onnx.load(tmp_path / "deep" / "tiny.onnx")
    assert [o.name for o in read.graph.output] == ["heatmap"]
    assert [d.dim_value for d in read.graph.output[0].type.tensor_type.shape.dim] == [1, 2, 4, 4]


def test_wrong_opsets_and_names_are_refused() -> None:
    example = {"img": torch.randn(1, 3, 4, 4)}
    with pytest.raises(ConfigError, match="13 to 21"):
        export_float(nn.ReLU(), example, opset=9)
    with pytest.raises(ConfigError, match="another number of outputs"):
        export_float(nn.Conv2d(3, 2, 1), example, output_names=("a", "b"))


def test_an_operator_without_onnx_form_is_named() -> None:
    with pytest.raises(QuantizationError, match=r"torch\.nn\.functional\.softmax at 1"):
        export_float(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Softmax(1)), {"img": torch.randn(1, 3, 4, 4)})
