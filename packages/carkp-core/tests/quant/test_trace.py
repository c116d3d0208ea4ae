"""Tracing by running once: what is recorded, and how what cannot be traced is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.errors import QuantizationError
from carkp_core.quant.trace import trace


def calls(net: nn.Module, x: Tensor | None = None, **kwargs: Any) -> list[str]:
    traced = trace(net, {"img": torch.randn(1, 3, 8, 8) if x is None else x}, **kwargs)
    return [node.meta["name"] for node in traced.graph.nodes if node.op in ("call_function", "call_module")]


class Shapes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if isinstance(x, Tensor) and h > 4:  # a choice by shape is traced as it falls
            x = x.view(n, c, h * w).mean(-1)
        return x * torch.arange(c)


def test_shapes_are_numbers_and_constants_are_kept() -> None:
    traced = trace(Shapes(), {"img": torch.randn(1, 3, 8, 8)})
    assert [n.meta["name"] for n in traced.graph.nodes if n.op == "call_function"] == ["view", "mean", "mul"]
    (constant,) = traced.tensors.values()
    assert torch.equal(constant, torch.arange(3))


def test_every_form_of_a_call_has_one_name() -> None:
    class Forms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(F.relu(torch.relu(x.relu().relu_())))

    assert calls(Forms()) == ["relu"] * 5


def test_what_happens_in_place_shows_through_the_old_name() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            y.mul_(2)
            y += x
            return y

    traced = trace(InPlace(), {"img": torch.randn(1, 3)})
    output = next(node for node in traced.graph.nodes if node.op == "output")
    assert output.args[0].meta["name"] == "add"
    assert output.args[0].args[0].meta["name"] == "mul"


def test_nodes_know_module_path_and_line() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(Shapes()))
    traced = trace(net, {"img": torch.randn(1, 3, 8, 8)})
    view = next(node for node in traced.graph.nodes if node.meta.get("name") == "view")
    assert view.meta["module_path"] == "1.0"
    assert view.meta["source"].file == __file__
    assert "x.view(n, c, h * w)" in Path(__file__).read_text().splitlines()[view.meta["source"].line - 1]


def test_recognised_modules_stay_whole() -> None:
    class Custom(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x)

    net = nn.Sequential(nn.ReLU(), Custom())
    assert calls(net) == ["relu", "sigmoid", "mul"]
    assert calls(net, is_leaf=lambda module: isinstance(module, Custom)) == ["relu", "1"]


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


class Assigns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        y[:, 0] = 0
        return y


class WrongSizes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] > 2
        return torch.cat([x, F.max_pool2d(x, 2)], dim=1)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (WrongSizes(), r"Sizes of tensors must match"),
        (nn.Sequential(nn.AvgPool2d(4), WrongSizes()), r"seen: AssertionError: assert 2 > 2"),
        (ByValue(), r"reads values of a tensor"),
        (Assigns(), r"assigns to part of a tensor"),
        (nn.Conv2d(4, 4, 1), r"fails on the example input"),
    ],
)
def test_what_cannot_be_traced_names_module_and_line(net: nn.Module, said: str) -> None:
    outer = nn.Sequential(nn.Identity(), net)
    with pytest.raises(QuantizationError, match=said) as caught:
        trace(outer, {"img": torch.randn(1, 3, 8, 8)})
    assert (caught.value.where or "").startswith("1")
    if not isinstance(net, nn.Conv2d):
        assert "test_trace.py:" in (caught.value.where or "")
    assert caught.value.remedy


def test_the_network_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()).train()
    net[2].eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trace(net, {"img": torch.randn(1, 3, 8, 8)})
    assert net[1].training
    assert not net[2].training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
