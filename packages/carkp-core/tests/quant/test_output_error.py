"""The error where a tensor is read: against the same sums by hand, through moves, clamps and outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.output_error import SLICE, output_errors, sliced
from carkp_core.quant.prepare import prepare

torch.set_num_threads(1)


def network_of(net: nn.Module, x: Tensor) -> QuantizedNetwork:
    torch.manual_seed(0)
    return prepare(net.eval(), {"img": x[:1]}).eval()


def rounded(values: Tensor, scale: float) -> Tensor:
    return (values / scale).round().clamp(-128, 127) * scale


def relative(changed: Tensor, plain: Tensor) -> float:
    return float((changed - plain).square().sum() / plain.square().sum())


class Fork(nn.Module):
    """One tensor, read behind a move by a convolution with a ReLU, and by a second convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Any:
        stem = self.stem(x)
        return self.left(nn.functional.max_pool2d(stem, 2)).relu(), self.right(stem)


def test_it_is_the_sum_over_readers_of_their_relative_errors() -> None:
    torch.manual_seed(1)
    x, net = torch.randn(4, 3, 12, 12), Fork()
    network = network_of(net, x)
    found = output_errors(network, {"stem": [0.01, 0.1], "img": [0.05]}, [(x[:2],), (x[2:],)])
    with torch.no_grad():
        stem = net.stem(x)
        for scale in (0.01, 0.1):
            coarse = rounded(stem, scale)
            left = [net.left(nn.functional.max_pool2d(v, 2)).relu() for v in (coarse, stem)]
            right = [net.right(v) for v in (coarse, stem)]
            assert found["stem"][scale] == pytest.approx(relative(*left) + relative(*right), rel=1e-3)
        assert found["img"][0.05] == pytest.approx(relative(net.stem(rounded(x, 0.05)), stem), rel=1e-3)
    assert found["stem"][0.1] < found["stem"][0.01] / 10, "steps of 0.01 end at 1.27"


def test_an_output_is_compared_with_itself_and_a_move_behind_it_changes_nothing() -> None:
    x = torch.randn(2, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    network = network_of(net, x)
    with torch.no_grad():
        plain = net(x)
    assert output_errors(network, {"0": [0.1]}, [(x,)])["0"][0.1] == pytest.approx(
        relative(rounded(plain, 0.1), plain), rel=1e-3
    )


class Times(nn.Module):
    """One tensor times a constant behind a ReLU: an output, and read by a second convolution."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.stem, self.head, self.constant = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3, bias=False), constant

    def forward(self, x: Tensor) -> Any:
        y = torch.relu(self.stem(x)) * self.constant
        return self.head(y), y.flatten(1)


@pytest.mark.parametrize("constant", [0.01, 0.1, 100.0])
def test_times_a_constant_the_steps_are_as_much_larger(constant: float) -> None:
    torch.manual_seed(1)
    x, tried = torch.randn(4, 3, 8, 8), [0.002, 0.02, 0.2]
    found = {}
    for factor in (1.0, constant):
        torch.manual_seed(2)
        found[factor] = output_errors(network_of(Times(factor), x), {"stem": tried}, [(x,)])["stem"]
    assert found[constant] == pytest.approx(found[1.0], rel=1e-3)
    assert min(found[1.0], key=found[1.0].__getitem__) == 0.02, "a choice that is neither extreme"


def test_what_a_clamp_or_a_zero_weight_hides_costs_nothing() -> None:
    x = torch.full((2, 2, 4, 4), 0.5)
    x[:, 1] = torch.randn(2, 4, 4)
    net = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2)[:, :, None, None])
        net[1].weight.copy_(torch.tensor([[[[1.0]], [[0.0]]]]))
    network = network_of(net, x)
    found = output_errors(network, {"0": [0.5, 0.3]}, [(x,)])["0"]
    assert found[0.5] == 0.0, "channel 0 is represented exactly, nobody reads channel 1"
    assert found[0.3] > 0.01


def test_a_sum_with_both_terms_from_one_tensor_rounds_both() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y + nn.functional.max_pool2d(y, 1)

    x, net = torch.randn(2, 3, 4, 4), Doubled()
    network = network_of(net, x)
    with torch.no_grad():
        y = net.conv(x)
    name = next(name for name, _ in network.scaled_layers() if name.startswith("conv"))
    assert output_errors(network, {name: [0.2]}, [(x,)])[name][0.2] == pytest.approx(
        relative(rounded(y, 0.2), y), rel=1e-3
    )


def test_int16_is_rounded_to_its_own_range() -> None:
    x = torch.randn(2, 3, 4, 4)
    network = network_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), x)
    errors = {}
    for dtype in ("int8", "int16"):
        network.layer("0").dtype = dtype
        errors[dtype] = output_errors(network, {"0": [1e-3]}, [(x,)])["0"][1e-3]
    assert errors["int16"] < 1e-6 < 0.1 < errors["int8"]


def test_nothing_is_known_without_batches() -> None:
    x = torch.randn(1, 3, 4, 4)
    assert output_errors(network_of(nn.Conv2d(3, 2, 1), x), {"img": [0.1]}, []) == {}


def test_batches_are_cut_into_small_pieces() -> None:
    first, second = torch.arange(SLICE * 2 + 3.0), torch.arange(2.0)
    pieces = list(sliced([(first, first), (second, second)]))
    assert [len(a) for a, _ in pieces] == [SLICE, SLICE, 3, 2]
    assert torch.equal(torch.cat([b for _, b in pieces]), torch.cat([first, second]))
