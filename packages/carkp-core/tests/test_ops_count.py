from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from carkp_core.errors import ConfigError
from carkp_core.ops_count import ROOT, count_ops


def count(model: nn.Module, *shape: int) -> tuple[int, int]:
    report = count_ops(model, {"x": torch.zeros(shape)})
    return report.macs, report.params


@pytest.mark.parametrize(
    ("model", "shape", "macs", "params"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 12), 10 * 12 * 8 * 3 * 9, 8 * 3 * 9 + 8),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), (2, 3, 10, 12), 2 * 5 * 6 * 8 * 3 * 9, 8 * 3 * 9),
        (nn.Conv2d(8, 8, 5, groups=8, bias=False), (1, 8, 9, 9), 5 * 5 * 8 * 25, 8 * 25),
        (nn.Conv2d(8, 12, 3, groups=4, dilation=2), (1, 8, 9, 9), 5 * 5 * 12 * 2 * 9, 12 * 2 * 9 + 12),
        (nn.ConvTranspose2d(6, 4, 4, 2, 1, bias=False), (1, 6, 5, 7), 5 * 7 * 6 * 4 * 16, 6 * 4 * 16),
        (nn.ConvTranspose2d(6, 4, 3, 2, groups=2), (1, 6, 5, 7), 5 * 7 * 6 * 2 * 9, 6 * 2 * 9 + 4),
        (nn.Linear(20, 7), (3, 20), 3 * 20 * 7, 20 * 7 + 7),
        (nn.Linear(20, 7, bias=False), (3, 5, 20), 15 * 20 * 7, 20 * 7),
        (nn.BatchNorm2d(5), (1, 5, 4, 4), 0, 10),
        (nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.AvgPool2d(2)), (1, 5, 8, 8), 0, 0),
    ],
)
def test_layers_count_as_on_paper(model: nn.Module, shape: tuple[int, ...], macs: int, params: int) -> None:
    assert count(model, *shape) == (macs, params)


class Functional(nn.Module):
    """A block that calls no child."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3, 3, 3))
        self.table = nn.Parameter(torch.zeros(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, padding=1).mean(dim=(2, 3))
        return torch.einsum("nc,ck->nk", y, self.table)


def test_functional_forms_count_for_the_module_that_calls_them() -> None:
    report = count_ops(nn.Sequential(nn.Identity(), Functional()), {"x": torch.zeros(2, 3, 5, 5)})
    (row,) = report.modules
    assert (row.path, row.kind) == ("1", "Functional")
    assert row.macs == 2 * 25 * 4 * 27 + 2 * 4 * 6
    assert row.params == 4 * 27 + 24
    assert count_ops(Functional(), {"x": torch.zeros(1, 3, 5, 5)}).modules[0].path == ROOT


def test_attention_counts() -> None:
    class Attention(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v)

    q, kv = torch.zeros(2, 4, 6, 8), torch.zeros(2, 4, 10, 8)
    assert count_ops(Attention(), {"q": q, "k": kv, "v": kv}).macs == 2 * (2 * 4) * 6 * 10 * 8


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.layer.weight
        self.idle = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.layer(self.layer(x)))


def test_reused_tied_and_idle_modules() -> None:
    report = count_ops(Reused(), {"x": torch.zeros(1, 6)})
    rows = {row.path: row for row in report.modules}
    assert list(rows) == ["layer", "tied", "idle"]
    assert (rows["layer"].calls, rows["layer"].macs, rows["layer"].params) == (2, 72, 42)
    assert (rows["tied"].macs, rows["tied"].params) == (36, 0)
    assert (rows["idle"].calls, rows["idle"].macs, rows["idle"].params) == (0, 0, 21)
    assert report.params == sum(p.numel() for p in Reused().parameters())


def small_network() -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(block, nn.Dropout(), nn.Conv2d(8, 2, 1))


def test_the_model_is_left_as_it_was() -> None:
    network = small_network().train()
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_ops(network, {"x": torch.randn(2, 3, 6, 6)})
    assert [m.training for m in network] == [True, True, False]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_grouping_keeps_the_totals() -> None:
    report = count_ops(small_network(), {"x": torch.zeros(1, 3, 6, 6)})
    grouped = report.grouped(1)
    assert [row.path for row in grouped.modules] == ["0", "2"]
    assert grouped.modules[0].kind == "2 modules"
    assert (grouped.macs, grouped.params) == (report.macs, report.params)


def test_json_has_the_fixed_keys() -> None:
    payload = count_ops(small_network(), {"x": torch.zeros(1, 3, 6, 6)}).to_json()
    assert set(payload) == {"macs", "params", "modules"}
    assert payload["modules"][0] == {
        "path": "0.0",
        "kind": "Conv2d",
        "calls": 1,
        "params": 216,
        "macs": 16 * 216,
        "output_shape": [1, 8, 4, 4],
    }


def test_a_network_that_does_not_run_is_named_where_it_stops() -> None:
    with pytest.raises(ConfigError, match="does not run on the example input") as caught:
        count_ops(small_network(), {"img": torch.zeros(1, 4, 6, 6)})
    assert caught.value.where == "0.0"
    assert "img [1, 4, 6, 6]" in str(caught.value)
