"""Calls that choose, repeat, pad, sum or compare along dimensions; each exact, none opaque but where it must be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.quant.convert import convert
from carkp_core.quant.fast import fast_graph
from carkp_core.quant.prepare import prepare

torch.set_num_threads(1)

INDEX = torch.tensor([2, 0, 2, 3])
ODD_KERNEL = torch.randn(4, 3, 3, 5, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution to four channels, then one call."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.call = nn.Conv2d(3, 4, 3, padding=1), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.conv(x))


#: A call, and the operators that it becomes but for reshapes.
CALLS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "channels of zeros": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 6)), "slice clamp clamp slice clamp concat"),
    "channels and a border": (lambda x: F.pad(x, (1, 0, 0, 2, 0, 2), value=0.5), "slice clamp concat pad"),
    "an index": (lambda x: torch.index_select(x, 1, INDEX), "conv2d"),
    "the same index": (lambda x: x.index_select(1, torch.arange(4)).relu(), ""),
    "one channel for all": (lambda x: x[:, 1:2].expand(-1, 5, -1, -1), "slice conv2d"),
    "one channel and row for all": (lambda x: x[:, :1, :1].expand(-1, 3, 8, -1), "slice slice conv2d concat"),
    "indexing by a list": (lambda x: x[:, [3, 0]], "conv2d"),
    "indexing by a tensor": (lambda x: x[:, INDEX, ...], "conv2d"),
    "indexing behind an ellipsis": (lambda x: x[..., [3, 0], :, :], "conv2d"),
    "features by an index": (lambda x: x.mean((2, 3)).index_select(1, INDEX), "avg_pool conv2d"),
    "a mean over the channels": (lambda x: x.mean(1, keepdim=True), "conv2d"),
    "a sum over a dimension": (lambda x: x.sum(dim=1), "conv2d rescale"),
    "a sum over the map": (lambda x: torch.sum(x, (2, 3), keepdim=True), "avg_pool rescale"),
    "a mean over the rows": (lambda x: x.mean(2), "avg_pool"),
    "the values of a maximum": (lambda x: torch.max(x, 1, keepdim=True)[0], "max_pool"),
    "named values of a maximum": (lambda x: x.max(dim=2).values, "max_pool"),
    "a maximum of many": (lambda x: x.flatten(1).unsqueeze(1).amax(-1), "max_pool max_pool"),
    "a maximum of a prime number": (lambda x: x.flatten(1)[:, :67].unsqueeze(1).amax(2), "slice max_pool max_pool"),
    "a pooling that also tells where": (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], "max_pool"),
    "a border cut off": (lambda x: F.pad(x, (-1, 2, 0, -3)), "slice slice pad"),
    "a reflected border": (lambda x: F.pad(x, (2, 0, 1, 1), mode="reflect"), "slice slice concat slice slice concat"),
    "a repeated border": (
        lambda x: F.pad(x, (2, 1, 0, 0), mode="replicate"),
        "slice slice concat",
    ),
    "a border from the other side": (lambda x: F.pad(x, (2, 1, 0, 0), mode="circular"), "slice slice concat"),
    "adaptive, regular": (lambda x: F.adaptive_avg_pool2d(x[:, :, :7], (3, 4)), "slice avg_pool"),
    "adaptive, larger": (
        lambda x: F.adaptive_avg_pool2d(x[..., :1, :4], (6, 8)),
        "slice slice concat slice slice slice slice concat",
    ),
    "adaptive, irregular": (
        lambda x: F.adaptive_avg_pool2d(x[:, :, :2], (7, 8)),
        "slice slice avg_pool slice concat",
    ),
    "adaptive maximum, irregular": (
        lambda x: F.adaptive_max_pool2d(x, (8, 5)),
        "slice max_pool slice max_pool slice max_pool slice max_pool slice max_pool concat",
    ),
    "the same windows, one result": (
        lambda x: F.adaptive_avg_pool2d(x, (1, 3)),
        "avg_pool slice avg_pool slice avg_pool slice avg_pool concat",
    ),
    "adaptive, each twice": (lambda x: F.adaptive_max_pool2d(x[..., 1:5, :4], (8, 8)), "slice slice resize"),
    "one pixel for all": (lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8), "avg_pool resize"),
    "zeros behind": (lambda x: torch.cat([x, torch.zeros_like(x)], 1), "clamp concat"),
    "constants before": (
        lambda x: torch.cat([torch.linspace(-1, 2, 16).view(1, 2, 8, 1).expand(len(x), 2, 8, 8), x], 1),
        "slice clamp constant add concat",
    ),
    "six dimensions": (
        lambda x: x.view(-1, 4, 2, 4, 2, 4).permute(0, 3, 5, 1, 2, 4).reshape(-1, 64, 2, 2),
        "transpose",
    ),
    "pixels to channels": (lambda x: F.pixel_unshuffle(x, 4), "transpose transpose"),
    "channels to pixels": (lambda x: F.pixel_shuffle(x, 2), "transpose transpose"),
    "a transposed convolution of stride 1": (
        lambda x: F.conv_transpose2d(x, ODD_KERNEL, torch.ones(6), 1, (1, 2), groups=2),
        "conv2d",
    ),
    "a dilated one": (lambda x: F.conv_transpose2d(x, ODD_KERNEL, dilation=2), "conv2d"),
    "a length": (
        lambda x: F.avg_pool1d(F.max_pool1d(x.flatten(2), 3, 2, padding=1), 3, 2, padding=1),
        "max_pool avg_pool",
    ),
    "an adaptive length": (
        lambda x: F.adaptive_avg_pool1d(x.flatten(2), 16) - F.adaptive_max_pool1d(x.flatten(2), 16),
        "avg_pool max_pool add",
    ),
    "a convolution of a length": (
        lambda x: F.conv1d(x.mean((2, 3)).unsqueeze(1), torch.tensor([[[0.5, -1.0, 0.25]]]), padding=1),
        "avg_pool conv2d",
    ),
    "a positive factor": (lambda x: x * 0.37 / 5, "rescale rescale"),
    "a negative factor": (lambda x: x * -2, "table"),
    "nothing": (lambda x: (0 + x * 1 - 0) / 1, ""),
    "a product added": (lambda x: torch.addcmul(x, x, x.sigmoid(), value=2), "table mul rescale add"),
    "constants scale and shift": (
        lambda x: torch.addcmul(torch.full((4, 1, 1), 2.0), x, torch.full((4, 1, 1), 0.5)),
        "conv2d conv2d",
    ),
    "a quotient": (lambda x: x / (1 + x.abs()), "table table table mul"),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_call_is_exact(name: str) -> None:
    torch.manual_seed(0)
    call, kinds = CALLS[name]
    net, x = Net(call).eval(), torch.randn(3, 3, 8, 8)
    network = prepare(net, {"x": x[:1]}).eval()
    network.start_observing()
    network(x)
    network.finish_observing()
    graph = convert(network, "net")
    assert [node.op.kind for node in graph.nodes if node.op.kind != "reshape"][1:] == kinds.split()
    names = [node.name for node in graph.nodes]
    expected = reference.execute(graph, {"x": quantize(x.numpy(), graph.inputs[0].type.scale, "int8")}, names)
    with torch.no_grad():
        got, wanted = network.integer_values([x], names), net(x)
        answer = network(x)
    assert {n: int((got[n].values.numpy() != expected[n]).sum()) for n in names} == dict.fromkeys(names, 0)
    assert float((answer - wanted).square().mean()) < 2e-3 * float(wanted.square().mean())


@pytest.mark.parametrize("size", [(6,), (6, 5)])
def test_a_batch_norm_of_vectors_folds_or_stands_alone(size: tuple[int, ...]) -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm = nn.Linear(12, 6), nn.BatchNorm1d(6)
            self.norm.running_mean = torch.randn(6)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.norm(self.fc(x) if size == (6,) else x[:, :30].reshape(-1, *size))

    net = Head().eval()
    x = torch.randn(4, 3, 2, 2) if size == (6,) else torch.randn(4, 3, 4, 4)
    graph = fast_graph(net, {"x": x[:1]})
    assert [node.op.kind for node in graph.nodes if node.op.kind not in ("reshape", "slice")] == ["conv2d"]


def test_indices_stay_whole_numbers_between_calls_without_integer_form() -> None:
    """Unpooling takes the pooling's indices; a gather those of a topk: the rest of the network is still judged."""

    class Unpool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y, where = F.max_pool2d(x, 2, return_indices=True)
            return F.max_unpool2d(y.relu(), where, 2)

    class Gather(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            found = x.flatten(2).topk(3)
            return x.flatten(2).gather(2, found.indices) + found.values

    for net, opaque in ((Unpool(), 2), (Gather(), 3)):
        graph = fast_graph(net, {"x": torch.zeros(1, 3, 8, 8)})
        assert sum(node.op.kind == "opaque" for node in graph.nodes) == opaque
        assert graph.nodes[-1].op.kind in ("opaque", "add")


def test_what_mixes_samples_is_left_as_it_is() -> None:
    """Rows of all samples in one, as attention writes them: opaque, and the rest of the network is still judged."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.lines = nn.Conv2d(3, 4, 1), nn.BatchNorm1d(4), nn.Conv1d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            tokens = self.norm(y.permute(0, 2, 3, 1).flatten(0, 2)).contiguous().relu()
            windows = self.lines(tokens.reshape(-1, 1, 4)).reshape(x.shape[0], -1)
            return windows.sigmoid() * y.mean()

    graph = fast_graph(Mixed().eval(), {"x": torch.zeros(1, 3, 4, 4)})
    kinds = [node.op.kind for node in graph.nodes]
    assert kinds[0] == "conv2d"
    assert "table" in kinds
    opaque = [node.op.target.rpartition(".")[2] for node in graph.nodes if node.op.kind == "opaque"]
    assert {"flatten", "batch_norm", "conv1d", "reshape"} <= set(opaque)
    assert "contiguous" not in opaque


def test_no_training_changes_chosen_channels() -> None:
    net = Net(lambda x: x[:, [3, 0, 0]].mean(1, keepdim=True)).eval()
    network = prepare(net, {"x": torch.zeros(1, 3, 8, 8)})
    trained = [tuple(p.shape) for p in network.parameters() if p.requires_grad and p.ndim == 4]
    assert trained == [(4, 3, 3, 3)]


def test_rows_and_columns_by_a_list_have_no_integer_form_and_say_so() -> None:
    for call in (lambda x: x[:, ..., [3, 0]], lambda x: x[..., :, [0, 1]]):
        graph = fast_graph(Net(call).eval(), {"x": torch.zeros(1, 3, 6, 7)}, None)
        assert [node.op.kind for node in graph.nodes] == ["conv2d", "opaque"]
