"""The quantized network as the calibrator meets it: scales, refusals, notes, nesting."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from carkp_core.errors import CheckpointError, QuantizationError
from carkp_core.quant.convert import convert
from carkp_core.quant.fast import fast_graph
from carkp_core.quant.integer_network import IntegerNetwork
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare
from carkp_core.train.checkpoint import load_state

torch.set_num_threads(1)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def calibrated(net: nn.Module, x: Tensor, **kwargs: Any) -> QuantizedNetwork:
    network = prepare(net, {"img": x[:1]}, **kwargs).eval()
    network.start_observing()
    network(x)
    network.finish_observing()
    return network


def test_observing_runs_the_float_network() -> None:
    net, x = small(), torch.randn(2, 3, 8, 8)
    network = prepare(net, {"img": x[:1]})
    network.start_observing()
    assert torch.allclose(network(x), net(x), atol=1e-6)


def test_pixel_inputs_have_their_given_scale() -> None:
    x = torch.randint(-128, 128, (2, 3, 8, 8)).float() / 128
    network = calibrated(small(), x, input_scales={"img": 1 / 128})
    graph = convert(network, "net")
    assert graph.inputs[0].type.scale == 1 / 128
    assert graph.inputs[0].preprocessing == "pixel - 128"
    with torch.no_grad():
        integers = network.integer_values([x], ["img"])["img"].values
    assert torch.equal(integers, x * 128)


def test_no_data_names_the_layer() -> None:
    network = prepare(small(), {"img": torch.randn(1, 3, 8, 8)})
    network.start_observing()
    with pytest.raises(QuantizationError, match=r"img: .*cannot be calibrated") as caught:
        network.finish_observing()
    assert caught.value.seen == "no data"


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_defects_name_the_layer_that_made_them(value: float, said: str) -> None:
    net = small()
    with torch.no_grad():
        net[2].bias[0] = value
    x = torch.randn(2, 3, 8, 8)
    network = prepare(net, {"img": x[:1]})
    network.start_observing()
    network(x)
    with pytest.raises(QuantizationError, match=said) as caught:
        network.finish_observing()
    assert caught.value.where == "2"


def test_a_constant_zero_tensor_stays_zero() -> None:
    net = small()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(-1.0)
    x = torch.randn(2, 3, 8, 8)
    network = calibrated(net, x)
    assert float(network.layer("0").scale) == pytest.approx(1 / 127)
    assert torch.allclose(network(x), net(x), atol=0.02)


def test_a_network_without_scales_says_what_to_do() -> None:
    network = prepare(small(), {"img": torch.randn(1, 3, 8, 8)}).eval()
    with pytest.raises(QuantizationError, match="has no scale") as caught:
        network(torch.randn(1, 3, 8, 8))
    assert "calibrate first" in (caught.value.remedy or "")


def test_training_without_scales_takes_them_from_the_first_batch() -> None:
    network = prepare(small(), {"img": torch.randn(1, 3, 8, 8)}).train()
    network(torch.randn(2, 3, 8, 8)).square().mean().backward()
    assert all(float(layer.scale) > 0 for _, layer in network.scaled_layers())


def test_one_missing_scale_is_found_alone() -> None:
    x = torch.randn(2, 3, 8, 8)
    network = calibrated(small(), x).train()
    before = {name: float(layer.scale) for name, layer in network.scaled_layers()}
    records, last = dict(network.observer_choices), network.steps[-1].name
    network.layer(last).set_scale(0.0)
    del network.observer_choices[last]
    network(3 * x)
    after = {name: float(layer.scale) for name, layer in network.scaled_layers()}
    assert after.pop(last) > 1.5 * before.pop(last), "of a batch three times as large"
    assert after == before
    assert network.observer_choices.pop(last)["choice"] == "min_max"
    assert network.observer_choices == {name: record for name, record in records.items() if name != last}


def test_scales_missing_in_a_loaded_state_are_found_again_in_a_copy_too() -> None:
    x = torch.randn(2, 3, 8, 8)
    empty = prepare(small(), {"img": x[:1]}).state_dict()
    network = calibrated(small(), x).train()
    network(x)
    copied = copy.deepcopy(network)
    nn.ModuleDict({"network": copied}).load_state_dict({f"network.{name}": value for name, value in empty.items()})
    assert {float(layer.scale) for _, layer in copied.scaled_layers()} == {0.0}
    copied(x)
    assert all(float(layer.scale) > 0 for _, layer in copied.scaled_layers())


def test_another_image_size_works_where_the_network_allows_it_and_is_named_where_not() -> None:
    x = torch.randn(2, 3, 8, 8)
    network = calibrated(small(), x)
    assert network(torch.randn(1, 3, 12, 10)).shape == (1, 2, 12, 10)
    assert convert(network, "net", {"img": torch.zeros(1, 3, 12, 10)}).nodes[-1].type.shape == (1, 2, 12, 10)
    flat = calibrated(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(128, 3)).eval(), x)
    for use in (
        lambda: flat(torch.randn(1, 3, 12, 10)),
        lambda: convert(flat, "net", {"img": torch.zeros(1, 3, 12, 10)}),
    ):
        with pytest.raises(QuantizationError, match="has its image size built in") as caught:
            use()
        assert caught.value.where == "img"
        assert "(3, 8, 8)" in (caught.value.allowed or "")


def test_notes_name_degenerate_channels() -> None:
    net = small()
    with torch.no_grad():
        net[0].weight[1] = 0.0
        net[0].weight[2] = 1e-12
    x = torch.randn(2, 3, 8, 8)
    network = calibrated(net, x)
    network(x)
    assert set(network.quant_notes()) == {"0"}
    assert "dead channel" in network.quant_notes()["0"][0]


def test_copies_and_state_dicts_are_whole() -> None:
    x = torch.randn(2, 3, 8, 8)
    network = calibrated(small(), x)
    expected = network(x)
    assert torch.equal(copy.deepcopy(network)(x), expected)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = prepare(small(), {"img": x[:1]}).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), expected)
    with torch.no_grad():
        network.layer("0").weight.mul_(0.5)
    assert not torch.equal(network(x), expected)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"a": self.a(x), "rest": [self.b(x), (x.relu(), None)]}


def test_outputs_keep_their_nesting_in_the_integer_network_too() -> None:
    x = torch.randn(2, 3, 8, 8)
    network = calibrated(Nested().eval(), x)
    integer = IntegerNetwork(convert(network, "net"))
    for result in (network(x), integer(x)):
        assert list(result) == ["a", "rest"]
        assert isinstance(result["rest"], list)
        assert isinstance(result["rest"][1], tuple)
        assert result["rest"][1][1] is None
    assert torch.equal(network(x)["rest"][1][0], integer(x)["rest"][1][0])
    assert torch.equal(network(x)["a"], integer(x)["a"])


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        values, _ = torch.sort(tokens, dim=1)
        mixed, _ = self.attention(values, values, values)
        return torch.softmax(mixed, dim=-1)


def test_unknown_operators_are_named_or_become_opaque() -> None:
    x = torch.randn(2, 3, 4, 4)
    network = calibrated(Strange().eval(), x)
    with pytest.raises(QuantizationError, match="have no integer form") as caught:
        convert(network, "net")
    for name in ("softmax", "sort", "MultiheadAttention"):
        assert name in (caught.value.seen or "")
    assert "test_network.py:" in (caught.value.seen or "")
    graph = fast_graph(Strange().eval(), {"img": torch.zeros(1, 3, 4, 4)})
    assert sum(node.op.kind == "opaque" for node in graph.nodes) == 3


@pytest.mark.parametrize("size", [(32, 32), (48, 80)])
def test_an_untrained_classifier_of_any_size_converts(size: tuple[int, int]) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 16, 3, groups=8),
        nn.BatchNorm2d(16), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 10),
    )  # fmt: skip
    graph = fast_graph(net, {"img": torch.zeros(1, 3, *size)})
    assert graph.nodes[-1].type.shape == (1, 10)
    assert [node.op.kind for node in graph.nodes].count("conv2d") == 3
    assert net.training


def test_layers_that_do_not_reproduce_the_network_are_refused() -> None:
    class Tricky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            y[:, 0].add_(5)  # changes y through a view
            return y

    with pytest.raises(QuantizationError, match="do not give what the network returns"):
        prepare(Tricky().eval(), {"img": torch.randn(1, 3, 4, 4)})


def test_records_of_calibration_travel_with_the_state_and_may_be_missing() -> None:
    x = torch.randn(2, 3, 8, 8)
    network = calibrated(small(), x)
    network.observer_choices = {"0": {"observer": "mse", "errors": {"mse": 0.5}}}
    network.repairs = [{"repair": "BiasCorrection"}]
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = prepare(small(), {"img": x[:1]}).eval()
    assert load_state(other, state, where="file").exact
    assert (other.observer_choices, other.repairs) == (network.observer_choices, network.repairs)
    older = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    assert load_state(prepare(small(), {"img": x[:1]}), older, where="file").exact
    with pytest.raises(CheckpointError, match="0 of 7 tensors fit"):
        load_state(other, {"_extra_state": {}, "w": torch.zeros(1)}, where="file", ignore_extra=True, allow_miss=True)
