"""Each operator of the integer IR alone: torch module, calibration, integer model, equal to the last element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from exact_networks import assert_exact, calibrated
from torch import Tensor, nn

from carkp_core.errors import QuantizationError
from carkp_core.quant.convert import convert

torch.set_num_threads(1)

Forward = Callable[[Tensor], Tensor]
CHANNELS = 6


class Behind(nn.Module):
    """A function behind an identity-sized convolution, so that its input has a calibrated scale of its own."""

    def __init__(self, forward: Forward, channels: int = CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(CHANNELS, channels, 1)
        # A module is registered as such.
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.stem(x))


class TwoTerms(nn.Module):
    """A function of two tensors with different scales."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.left(x), F.relu(self.right(x)) * 3.7)


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, 3, c // 3, h, w).transpose(1, 2).flatten(1, 2)


def conv(*args: Any, **kwargs: Any) -> nn.Module:
    return Behind(nn.Conv2d(CHANNELS, *args, **kwargs))


#: What is listed -> the network and the IR operators that must be there.
OPERATORS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "convolution": (lambda: conv(5, 3, stride=2, padding=1), {"conv2d"}),
    "grouped": (lambda: conv(9, 3, groups=3), {"conv2d"}),
    "depthwise": (lambda: conv(CHANNELS, (3, 5), padding=(1, 2), groups=CHANNELS), {"conv2d"}),
    "depthwise with a multiplier": (lambda: conv(2 * CHANNELS, 3, groups=CHANNELS), {"conv2d"}),
    "dilated": (lambda: conv(4, 3, padding=2, dilation=2), {"conv2d"}),
    "asymmetric padding inside": (lambda: conv(4, (2, 4), padding="same"), {"conv2d"}),
    "asymmetric padding outside": (
        lambda: Behind(nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(6, 4, 3))), {"conv2d"},
    ),
    "residual": (lambda: TwoTerms(lambda a, b: F.relu6(a + b)), {"add"}),
    "fully connected": (lambda: Behind(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(6, 7))), {"conv2d"}),
    "fully connected on tokens": (
        lambda: Behind(nn.Sequential(nn.Flatten(2), nn.Linear(64, 5))), {"conv2d", "transpose"},
    ),
    "add": (lambda: TwoTerms(torch.add), {"add"}),
    "add with broadcast": (lambda: TwoTerms(lambda a, b: a + b.mean((2, 3), keepdim=True)), {"add", "avg_pool"}),
    "sub": (lambda: TwoTerms(torch.sub), {"add"}),
    "sub, reversed and negated": (lambda: TwoTerms(lambda a, b: -b - a), {"add", "table"}),
    "mul": (lambda: TwoTerms(torch.mul), {"mul"}),
    "mul with broadcast": (lambda: TwoTerms(lambda a, b: a * b.mean((2, 3), keepdim=True)), {"mul"}),
    "concat": (lambda: TwoTerms(lambda a, b: torch.cat([a, b, a[:, :1]], 1)), {"concat"}),
    "concat along the width": (lambda: TwoTerms(lambda a, b: torch.cat([a, b], 3)), {"concat"}),
    "split": (lambda: Behind(lambda x: torch.cat(list(x.split([1, 3, 2], 1))[::-1], 1)), {"slice", "concat"}),
    "slice": (lambda: Behind(lambda x: x[:, 1:5:2, 1:, :-2]), {"slice"}),
    "pad": (lambda: Behind(lambda x: F.pad(x, (0, 2, 1, 0), value=-0.4)), {"pad"}),
    "max pooling": (lambda: Behind(lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True)), {"max_pool"}),
    "max pooling, dilated": (lambda: Behind(lambda x: F.max_pool2d(x, 2, 1, 1, dilation=2)), {"max_pool"}),
    "max pooling, global": (lambda: Behind(nn.AdaptiveMaxPool2d(1)), {"max_pool"}),
    "average pooling": (lambda: Behind(nn.AvgPool2d(3, 2, 1)), {"avg_pool"}),
    "average pooling without padding in the count": (
        lambda: Behind(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)), {"avg_pool"},
    ),
    "average pooling, global": (lambda: Behind(nn.AdaptiveAvgPool2d(1)), {"avg_pool"}),
    "mean": (lambda: Behind(lambda x: x.mean((2, 3))), {"avg_pool", "reshape"}),
    "mean, one side": (lambda: Behind(lambda x: x.mean(3, keepdim=True)), {"avg_pool"}),
    "nearest": (lambda: Behind(lambda x: F.interpolate(x, scale_factor=2)), {"resize"}),
    "nearest, downwards": (lambda: Behind(lambda x: F.interpolate(x, size=(5, 3))), {"resize"}),
    "bilinear": (lambda: Behind(lambda x: F.interpolate(x, size=(11, 13), mode="bilinear")), {"resize"}),
    "bilinear, corners": (
        lambda: Behind(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)), {"resize"},
    ),
    "clamp": (lambda: Behind(lambda x: torch.cat([x, x.clamp(-0.2, 0.3)], 1)), {"clamp", "concat"}),
    "PReLU": (lambda: Behind(nn.PReLU(init=0.1)), {"table"}),
    "PReLU per channel": (lambda: Behind(per_channel_prelu()), {"table"}),
    "sigmoid": (lambda: Behind(nn.Sigmoid()), {"table"}),
    "tanh": (lambda: Behind(nn.Tanh()), {"table"}),
    "silu": (lambda: Behind(nn.SiLU()), {"table"}),
    "hard-swish": (lambda: Behind(nn.Hardswish()), {"table"}),
    "hard-sigmoid": (lambda: Behind(nn.Hardsigmoid()), {"table"}),
    "gelu": (lambda: Behind(nn.GELU()), {"table"}),
    "gelu, tanh": (lambda: Behind(nn.GELU(approximate="tanh")), {"table"}),
    "leaky ReLU": (lambda: Behind(nn.LeakyReLU(0.1)), {"table"}),
    "reshape": (lambda: Behind(lambda x: x.reshape(x.shape[0], 3, -1, 8)), {"reshape"}),
    "flatten": (lambda: Behind(nn.Flatten()), {"reshape"}),
    "transpose": (lambda: Behind(lambda x: x.permute(0, 2, 3, 1)), {"transpose"}),
    "channel shuffle": (lambda: Behind(shuffle), {"reshape", "transpose"}),
    "channel shuffle, as a module": (lambda: Behind(nn.ChannelShuffle(3)), {"reshape", "transpose"}),
}  # fmt: skip

#: Operators whose int16 form is listed too; a table per channel has none.
INT16 = tuple(name for name in OPERATORS if name != "PReLU per channel")


def per_channel_prelu() -> nn.Module:
    prelu = nn.PReLU(CHANNELS)
    nn.init.uniform_(prelu.weight, -0.5, 0.9)
    return prelu


def picture() -> Tensor:
    return torch.randn(3, CHANNELS, 8, 8)


def check_operator(name: str) -> None:
    """The operator's network is exact, and made of the IR operators it should be."""
    torch.manual_seed(0)
    make, kinds = OPERATORS[name]
    graph = assert_exact(make(), picture())
    assert kinds <= {node.op.kind for node in graph.nodes}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_operator_is_exact(name: str) -> None:
    check_operator(name)


@pytest.mark.parametrize("name", INT16)
def test_the_operator_is_exact_in_int16(name: str) -> None:
    torch.manual_seed(1)
    net, x = OPERATORS[name][0](), picture()
    names = [step.name for step in calibrated(net, x).steps]
    graph = assert_exact(net, x, dtypes=dict.fromkeys(names, "int16"))
    assert graph.types()[graph.outputs[0]].dtype == "int16"


@pytest.mark.parametrize("kernel", range(2, 15))
def test_transposed_convolutions_of_every_kernel_are_exact(kernel: int) -> None:
    torch.manual_seed(kernel)
    stride = 1 + kernel % 4
    padding, extra = min(kernel // 2, 3), stride - 1
    net = nn.Sequential(
        nn.ConvTranspose2d(4, 6, kernel, stride, padding, extra, bias=bool(kernel % 2)),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, (2, kernel), (2, stride), (0, padding), groups=2),
    )
    graph = assert_exact(net, torch.randn(2, 4, 5, 6))
    first = "conv2d" if stride == 1 else "conv_transpose2d"
    assert [node.op.kind for node in graph.nodes] == [first, "conv_transpose2d"]


def test_the_accumulator_proof_refuses_with_the_layers_name_and_the_numbers() -> None:
    """140,000 inputs of weight 127 and value -128 make more than 2**31; a bias of one sign can't take that back."""
    net = nn.Sequential()
    net.add_module("trunk", nn.Conv2d(140_000, 1, 1))
    nn.init.constant_(net.trunk.weight, 0.01)  # type: ignore[arg-type]
    network = calibrated(net, torch.rand(1, 140_000, 1, 1), input_scales={"img": 1.0 / 127})
    with pytest.raises(QuantizationError, match="the accumulator may leave int32") as caught:
        convert(network, "net")
    text = str(caught.value)
    assert "trunk" in text
    assert f"channel 0: sum of |weights| {127 * 140_000} times 128" in text
    assert str((1 << 31) - 1) in text


def test_a_transposed_convolution_without_output_is_refused() -> None:
    with pytest.raises(QuantizationError):
        calibrated(nn.ConvTranspose2d(3, 3, 1, padding=3), torch.randn(1, 3, 4, 4))
