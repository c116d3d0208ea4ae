"""The export in ONNX Runtime: per layer equal but beside ties, counted over the whole network."""

from __future__ import annotations

import builtins
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exact_networks import calibrated
from torch import Tensor, nn

from carkp_core.errors import ConfigError
from carkp_core.export.onnx_check import check_layers, check_network, exact_values, layer_graph, runtime_available
from carkp_core.export.onnx_qdq import export_qdq
from carkp_core.ir import operators as ops
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import multiplier_and_shift, quantize
from carkp_core.ir.graph import Graph, Node, TensorType
from carkp_core.quant.convert import convert

torch.set_num_threads(1)


class Net(nn.Module):
    """Every operator whose QDQ form rounds, and moves between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.same = nn.Conv2d(16, 16, (2, 3), padding="same", groups=4)
        self.up = nn.ConvTranspose2d(16, 8, 5, 3, 1, output_padding=1)
        self.grouped_up = nn.ConvTranspose2d(8, 8, 2, 2, groups=4)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x = F.relu6(x - self.same(x))
        pooled = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        gated = F.silu(x) * torch.sigmoid(pooled.mean((2, 3), keepdim=True))
        y = torch.cat([gated, F.interpolate(pooled, size=x.shape[2:], mode="bilinear")], 1)[:, ::2]
        y = F.interpolate(F.max_pool2d(y, 2), scale_factor=2) + x
        return self.grouped_up(F.relu(self.up(y))), self.fc(F.pad(y, (0, 1, 1, 0)).mean((2, 3)))


def converted(net: nn.Module, x: Tensor, dtype: str) -> tuple[Graph, dict[str, Any]]:
    names = [step.name for step in calibrated(net, x).steps]
    graph = convert(calibrated(net, x, dtypes=dict.fromkeys(names, dtype)), "net")
    declared = graph.inputs[0].type
    return graph, {"img": quantize(x.numpy(), declared.scale, declared.dtype)}


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_each_layer_is_equal_but_beside_a_tie(dtype: str) -> None:
    torch.manual_seed(0)
    graph, inputs = converted(Net(), torch.randn(4, 3, 24, 24), dtype)
    layers = check_layers(graph, inputs)
    assert {layer.name: layer.wrong for layer in layers if layer.wrong} == {}
    assert sum(layer.elements for layer in layers) > 50_000
    assert sum(layer.beside_a_tie for layer in layers) < 300


@pytest.mark.parametrize("kernel", [2, 3, 4, 7, 14])
def test_transposed_convolutions_are_exported(kernel: int) -> None:
    torch.manual_seed(kernel)
    net = nn.Sequential(
        nn.ConvTranspose2d(8, 6, kernel, 2, min(kernel // 2, 3), output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(6, 4, kernel, 2, groups=2, bias=False),
    )  # fmt: skip
    graph, inputs = converted(net, torch.randn(2, 8, 5, 6), "int8")
    layers = check_layers(graph, inputs)
    assert [layer.kind for layer in layers] == ["conv_transpose2d", "conv_transpose2d"]
    assert all(layer.wrong == 0 for layer in layers)


def test_another_weight_or_multiplier_is_no_tie() -> None:
    torch.manual_seed(1)
    graph, inputs = converted(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.randn(2, 3, 9, 9), "int8"
    )
    model = export_qdq(graph)
    agreement = check_network(graph, model, inputs, lambda given: reference.execute(graph, given))
    assert (agreement.images, agreement.elements) == (2, 2 * 2 * 7 * 7)
    assert agreement.differing <= 3
    conv = graph.nodes[-1].op
    assert isinstance(conv, ops.Conv2d)
    other = attrs.evolve(graph.nodes[-1], op=attrs.evolve(conv, bias=conv.bias + 3000))
    changed = attrs.evolve(graph, nodes=(*graph.nodes[:-1], other))
    apart = check_network(graph, export_qdq(changed), inputs, lambda given: reference.execute(graph, given))
    assert apart.differing > agreement.elements // 2
    assert apart.beyond_one_step > 0
    assert apart.largest_steps > 1


def test_exact_values_are_the_numbers_before_rounding() -> None:
    kind = TensorType((1, 3), "int8", 1.0)
    x = np.asarray([[-5, 1, 7]], dtype=np.int8)
    third, half = multiplier_and_shift(1 / 3), multiplier_and_shift(0.5)
    node = Node("y", ops.Rescale(*third, -128, 127), ("x",), kind)
    assert np.allclose(exact_values(node, (x,)), x / 3, atol=2e-5)
    add = Node("y", ops.Add((ops.Term(*third), ops.Term(*half, negative=True)), -128, 127), ("x", "x"), kind)
    assert np.allclose(exact_values(add, (x, x)), x / 3 - x / 2, atol=1e-6)
    concat = ops.Concat((ops.Term(*third), ops.Term(*half)), 1, -128, 127)
    joined = Node("y", concat, ("x", "x"), TensorType((1, 6), "int8", 1.0))
    assert np.allclose(exact_values(joined, (x, x)), np.concatenate([x / 3, x / 2], 1), atol=1e-6)


def test_a_layer_alone_keeps_its_tensors() -> None:
    torch.manual_seed(2)
    graph, _ = converted(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), torch.randn(1, 3, 6, 6), "int8")
    alone = layer_graph(graph.nodes[1], graph)
    assert [i.name for i in alone.inputs] == [graph.nodes[0].name]
    assert alone.inputs[0].type == graph.nodes[0].type


def test_without_the_runtime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    graph, inputs = converted(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 6, 6), "int8")
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert not runtime_available()
    with pytest.raises(ConfigError, match="without ONNX Runtime"):
        check_layers(graph, inputs)
