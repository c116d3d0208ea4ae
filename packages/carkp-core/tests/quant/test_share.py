"""A module used twice stays one in training; what only looks alike stays two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from exact_networks import calibrated, differing
from torch import Tensor, nn

from carkp_core.quant.convert import convert
from carkp_core.quant.settings import QAT_MODES, quant_settings

torch.set_num_threads(1)


class Twice(nn.Module):
    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.shared = make()

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(torch.relu(self.shared(x)) - 0.1)


class TwoNorms(nn.Module):
    """One convolution, two fresh batch norms, whose folded weights are equal until they are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(F.relu(self.first(self.conv(x)))))


def conv_bn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.PReLU(4))


@pytest.mark.parametrize("mode", QAT_MODES)
@pytest.mark.parametrize(
    "make",
    [conv_bn, lambda: nn.ConvTranspose2d(4, 4, 3, padding=1), lambda: nn.BatchNorm2d(4), lambda: nn.Linear(6, 6)],
)
def test_a_module_used_twice_stays_one(make: Callable[[], nn.Module], mode: str) -> None:
    torch.manual_seed(0)
    net, x = Twice(make), torch.randn(4, 4, 6, 6)
    network = calibrated(net, x, settings=quant_settings(mode)).train()
    parameters = dict(network.named_parameters(remove_duplicate=False))
    assert len({id(p) for p in parameters.values()}) * 2 == len(parameters)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
    network.eval()
    graph = convert(network, "net")
    assert differing(network, graph, x) == {}
    arrays = [node.op.weight.tolist() for node in graph.nodes if node.op.kind.startswith("conv")]  # type: ignore[attr-defined]
    scales = {node.type.scale for node in graph.nodes if node.op.kind.startswith("conv")}
    assert len(scales) == len(arrays) == 2
    assert arrays[0] == arrays[1]


def test_what_only_looks_alike_stays_two() -> None:
    torch.manual_seed(1)
    network = calibrated(TwoNorms(), torch.randn(2, 4, 5, 5))
    assert len(list(network.parameters())) == 4
    twins = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    twins[2].load_state_dict(twins[0].state_dict())
    assert len(list(calibrated(twins, torch.randn(2, 4, 5, 5)).parameters())) == 4


def test_shared_state_is_restored() -> None:
    torch.manual_seed(2)
    net, x = Twice(conv_bn), torch.randn(2, 4, 6, 6)
    network = calibrated(net, x)
    other = calibrated(Twice(conv_bn), x)
    other.load_state_dict(network.state_dict())
    assert convert(other, "net").digest() == convert(network, "net").digest()
