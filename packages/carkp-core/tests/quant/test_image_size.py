"""At another image size a traced network gives what the float network gives, or says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.errors import QuantizationError
from carkp_core.quant.prepare import prepare

torch.set_num_threads(1)

Part = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """Two convolutions of stride 2, and a part that may read shapes."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 4, 3, 2, 1)
        self.classes = nn.Linear(4, 2)
        self.bn = nn.BatchNorm2d(4)
        self.place = nn.Parameter(torch.randn(1, 4, 8, 8))
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self, self.bn(self.first(x)))


FOLLOWS: dict[str, Part] = {
    "convolution": lambda net, y: net.second(y.relu()),
    "global average": lambda net, y: net.classes(F.adaptive_avg_pool2d(y, 1).flatten(1)),
    "mean": lambda net, y: y.mean((2, 3)),
    "scale factor": lambda net, y: y + F.interpolate(net.second(y), scale_factor=2),
    "constant slice": lambda net, y: y[:, :, :4],
    "padding": lambda net, y: F.pad(y, (1, 1, 1, 1)),
}
BUILT_IN: dict[str, Part] = {
    "sum": lambda net, y: y.sum((2, 3)),
    "a side as a number": lambda net, y: y / y.shape[-1],
    "a kernel from the shape": lambda net, y: F.avg_pool2d(y, (y.shape[-2], y.shape[-1])),
    "adaptive pooling": lambda net, y: F.adaptive_avg_pool2d(y, 2),
    "a size taken from a tensor": lambda net, y: F.interpolate(net.second(y), size=y.shape[-2:]),
    "half of the rows": lambda net, y: y[:, :, : y.shape[2] // 2],
    "flattened places": lambda net, y: y.reshape(y.shape[0], 4, -1).mean(2),
    "learned places": lambda net, y: y + net.place,
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_it_follows_the_size_as_the_float_network_does(name: str) -> None:
    net = Net(FOLLOWS[name]).eval()
    network = prepare(net, {"img": torch.zeros(1, 3, 16, 16)}).eval()
    assert network.built_in_size == ""
    for size in ((16, 16), (24, 20), (40, 64)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad(), network.in_float():
            torch.testing.assert_close(network(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_refuses_another_size_by_name(name: str) -> None:
    net = Net(BUILT_IN[name]).eval()
    network = prepare(net, {"img": torch.zeros(1, 3, 16, 16)}).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad(), network.in_float():
        torch.testing.assert_close(network(x), net(x), rtol=1e-4, atol=1e-5)
        with pytest.raises(QuantizationError, match="image size built in") as caught:
            network(torch.randn(2, 3, 24, 20))
    assert caught.value.where == "img"
    assert caught.value.seen is not None
    assert caught.value.seen.startswith("(3, 24, 20); ")
    if name == "learned places":
        assert "the network itself fails at another size" in caught.value.seen
    else:
        assert "test_image_size.py:" in caught.value.seen, "the line that has the size"


def test_looking_at_a_second_size_leaves_the_network_as_it_was() -> None:
    net = Net(FOLLOWS["convolution"])
    net.bn.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    network = prepare(net, {"img": torch.zeros(1, 3, 16, 16)})
    assert network.training
    assert [net.training, net.first.training, net.bn.training] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_large_images_are_halved_instead_of_doubled() -> None:
    seen: list[tuple[int, ...]] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape[2:]))
            return self.conv(x)  # type: ignore[no-any-return]

    prepare(Watched().eval(), {"img": torch.zeros(1, 3, 520, 516)})
    prepare(Watched().eval(), {"img": torch.zeros(1, 3, 16, 24)})
    assert seen == [(520, 516), (260, 258), (16, 24), (32, 48)]
