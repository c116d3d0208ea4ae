"""From observers to scales: the record of each choice, and what is refused by name."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from carkp_core.errors import QuantizationError
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.observers import Kl, MinMax, Mix, Mse, Observer, Percentile
from carkp_core.quant.output_error import output_errors, sliced
from carkp_core.quant.prepare import prepare
from carkp_core.quant.scales import silent_tensors

torch.set_num_threads(1)

RECORDED = {"observer", "choice", "threshold", "scale", "low", "high", "batches"}


def heavy_tailed(x: Tensor) -> tuple[nn.Module, QuantizedNetwork]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1)).eval()
    return net, prepare(net, {"img": x[:1]}).eval()


def images(seed: int = 0) -> Tensor:
    return torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) ** 3


def test_a_record_says_what_was_seen_and_what_came_of_it() -> None:
    x = images()
    net, network = heavy_tailed(x)
    network.start_observing(lambda: Percentile(99.0))
    network(x[:12])
    network(x[12:])
    network.finish_observing()
    with torch.no_grad():
        first = net[:2](x)
    assert list(network.observer_choices) == ["img", "0", "2", "3"]
    for name, record in network.observer_choices.items():
        assert set(record) == RECORDED
        assert (record["observer"], record["choice"], record["batches"]) == ("percentile", "percentile", 2)
        assert record["scale"] == float(network.layer(name).scale) == pytest.approx(record["threshold"] / 127)
    assert network.observer_choices["0"]["low"] == 0.0
    assert network.observer_choices["0"]["high"] == pytest.approx(float(first.max()))


def test_mix_takes_the_candidate_with_the_least_error_on_the_held_back_batches() -> None:
    x, held = images(), images(1)
    _, network = heavy_tailed(x)
    network.start_observing(Mix)
    network(x)
    assert network.chooses
    network.finish_observing(batches=sliced([(held,)]))
    assert not network.chooses
    for name, record in network.observer_choices.items():
        assert record["observer"] == "mix"
        assert (
            set(record["errors"])
            == set(record["thresholds"])
            == {"min_max", "mse", "kl"} | {f"percentile {p}" for p in ("99", "99.9", "99.975", "99.99", "99.999")}
        )
        assert record["choice"] == min(record["errors"], key=record["errors"].__getitem__)
        assert record["threshold"] == record["thresholds"][record["choice"]]
        measured = output_errors(network, {name: [float(network.layer(name).scale)]}, sliced([(held,)]))
        assert record["errors"][record["choice"]] == pytest.approx(next(iter(measured[name].values())))
    assert json.loads(json.dumps(network.observer_choices)) == network.observer_choices


def test_mix_is_better_than_any_candidate_alone_in_what_it_measures() -> None:
    x, held = images(), images(1)
    _, network = heavy_tailed(x)
    network.start_observing(Mix)
    network(x)
    network.finish_observing(batches=[(held,)])
    totals = {c: sum(r["errors"][c] for r in network.observer_choices.values()) for c in ("min_max", "mse", "kl")}
    mixed = sum(record["errors"][record["choice"]] for record in network.observer_choices.values())
    assert mixed <= min(totals.values())
    assert mixed < max(totals.values()) / 2


def noise(net: nn.Module, make: type[Observer], x: Tensor, held: Tensor) -> float:
    """Relative squared error of the quantized network's output."""
    network = prepare(net, {"img": x[:1]}).eval()
    network.start_observing(make)
    network(x)
    network.finish_observing(batches=[(held,)])
    with torch.no_grad():
        return float((network(held) - net(held)).square().sum() / net(held).square().sum())


def test_only_mix_sees_that_loud_channels_are_read_by_small_weights() -> None:
    """As trained depthwise networks have them; the float network is the same with and without the scaling."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=32, bias=False), nn.Conv2d(32, 4, 1)
    ).eval()
    x, held = torch.randn(24, 3, 16, 16), torch.randn(24, 3, 16, 16)
    plain = noise(net, Mix, x, held)
    with torch.no_grad():
        net[0].weight[5] *= 50
        net[0].bias[5] *= 50
        net[2].weight[5] /= 50
    found = {kind.name: noise(net, kind, x, held) for kind in (Mix, MinMax, Percentile, Mse, Kl)}
    assert found["mix"] == min(found.values())
    assert found["mix"] < found["min_max"] / 5
    assert plain < found["mix"], "clipping the loud channel costs something"


def test_mix_without_batches_to_choose_by_says_that_it_was_mse() -> None:
    x = images()
    scales = []
    for make in (Mix, Mse):
        _, network = heavy_tailed(x)
        network.start_observing(make)
        network(x)
        network.finish_observing()
        scales.append([float(layer.scale) for _, layer in network.scaled_layers()])
        assert {record["choice"] for record in network.observer_choices.values()} == {"mse"}
    assert scales[0] == scales[1]


def test_held_back_batches_that_are_not_finite_choose_nothing() -> None:
    x, held = images(), images(1)
    held[3, 1, 2, 2] = math.nan
    _, network = heavy_tailed(x)
    network.start_observing(Mix)
    network(x)
    with pytest.raises(QuantizationError, match="cannot be compared") as caught:
        network.finish_observing(batches=[(held,)])
    assert caught.value.where == "img"
    assert "held-back" in (caught.value.seen or "")


def test_a_given_input_scale_stays_and_its_values_are_still_looked_at() -> None:
    x = images()
    net, _ = heavy_tailed(x)
    network = prepare(net, {"img": x[:1]}, input_scales={"img": 1 / 128}).eval()
    network.start_observing()
    network(x)
    network.finish_observing()
    assert float(network.layer("img").scale) == 1 / 128
    assert "img" not in network.observer_choices
    network.start_observing()
    network(x.where(x < x.max(), torch.tensor(math.nan)))
    with pytest.raises(QuantizationError) as caught:
        network.require_finite("calibration batch 7")
    assert caught.value.where == "img"
    assert caught.value.seen == "NaN in the network input, calibration batch 7"


def test_silent_tensors_are_those_of_zeros_alone() -> None:
    x = images()
    net, network = heavy_tailed(x)
    with torch.no_grad():
        net[0].bias.fill_(-1e6)
    network = prepare(net, {"img": x[:1]}).eval()
    network.start_observing()
    network(x)
    network.finish_observing()
    assert silent_tensors(network.observer_choices) == ["0"]
    assert float(network.layer("0").scale) == pytest.approx(1 / 127)
