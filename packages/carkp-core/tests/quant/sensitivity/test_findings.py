"""From sums to decibels, shares and changes of the metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from sensitive_nets import healthy, images
from torch import Tensor

from carkp_core.cli_options import write_json
from carkp_core.quant.sensitivity.findings import Sensitivity, findings, worst_layers
from carkp_core.quant.sensitivity.measurement import BatchSums, State, measure
from carkp_core.quant.sensitivity.mixed import MixedNetwork
from carkp_core.quant.sensitivity.outline import Outline, outline


def near(outputs: Tensor) -> list[State]:
    """A metric: the share of outputs above one half."""
    return [{"hits": np.asarray(int((outputs > 0.5).sum())), "all": np.asarray(outputs.numel())}]


def share(states: Sequence[State]) -> dict[str, float]:
    return {"share": float(states[0]["hits"]) / float(states[0]["all"])}


def batches(count: int) -> tuple[list[BatchSums], Outline]:
    mixed = MixedNetwork(healthy())
    return [measure(mixed, [images(2, seed=seed)], near) for seed in range(count)], outline(mixed)


def test_ratios_are_of_the_sums_of_all_batches() -> None:
    sums, shape = batches(2)
    found = findings(sums, shape, share)
    total = sums[0] + sums[1]
    for layer in found.layers:
        own = total.layers[layer.name]
        for key, noise in (("alone", own.alone), ("accumulated", own.accumulated), ("output", own.from_output)):
            expected = math.inf if noise == 0 else 10 * math.log10(own.signal / noise)
            assert getattr(layer, f"{key}_db") == pytest.approx(expected)
        (noise,) = own.only.noise
        expected = math.inf if noise == 0 else 10 * math.log10(total.signal[0] / noise)
        assert layer.network_alone_db == pytest.approx(expected)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1.0)
    assert found.samples == 4
    assert [layer.index for layer in found.layers] == list(range(len(found.layers)))


def test_metrics_are_of_the_summed_states() -> None:
    sums, shape = batches(4)
    found = findings(sums, shape, share)
    total = sums[0] + sums[1] + sums[2] + sums[3]
    assert found.metric == "share"
    assert found.metrics_float == share(total.in_float.states)
    assert found.loss == found.metrics_float["share"] - found.metrics_quantized["share"]
    head = next(layer for layer in found.layers if layer.name == "head")
    own = total.layers["head"]
    assert head.loss_alone == found.metrics_float["share"] - share(own.only.states)["share"]
    assert head.gain_without == share(own.without.states)["share"] - found.metrics_quantized["share"]
    losses = [share(b.in_float.states)["share"] - share(b.layers["head"].only.states)["share"] for b in sums]
    assert head.loss_error == pytest.approx(float(np.std(losses, ddof=1)) / 2)
    assert math.isnan(findings(sums[:3], shape, share).layers[1].loss_error), "three batches are too few"


def test_a_batch_without_the_metric_does_not_count_in_its_error() -> None:
    def counted(states: Sequence[State]) -> dict[str, float]:
        return share(states) if states[0]["all"] > 0 else {"share": math.nan}

    sums, shape = batches(4)
    nothing = attrs.evolve(sums[0].in_float, states=({"hits": np.asarray(0), "all": np.asarray(0)},))
    blank = attrs.evolve(sums[0], in_float=nothing)
    plain, found = findings(sums, shape, share), findings([*sums, blank], shape, counted)
    for a, b in zip(plain.layers, found.layers, strict=True):
        assert b.loss_error == pytest.approx(a.loss_error)
    assert any(layer.loss_error > 0 for layer in plain.layers)
    few = findings([*sums[:3], blank], shape, counted)
    assert all(math.isnan(layer.loss_error) for layer in few.layers)


def test_a_metric_of_which_lower_is_better_loses_what_it_rises() -> None:
    def distance(states: Sequence[State]) -> dict[str, float]:
        return {"distance": 3.0 - 2.0 * share(states)["share"]}

    sums, shape = batches(4)
    plain, found = findings(sums, shape, share), findings(sums, shape, distance, lower_is_better=True)
    assert any(layer.loss_alone for layer in plain.layers)
    assert found.loss == pytest.approx(2 * plain.loss)
    for a, b in zip(plain.layers, found.layers, strict=True):
        assert b.loss_alone == pytest.approx(2 * a.loss_alone)
        assert b.gain_without == pytest.approx(2 * a.gain_without)
        assert b.loss_bound == pytest.approx(0.002 * found.metrics_float["distance"])
    assert (plain.in_points, found.in_points) == (True, False)
    small = attrs.evolve(found, metrics_float={"d": 0.4}, metrics_quantized={"d": 0.5})
    assert not small.in_points, "a distance below 1 is no share"
    assert small.spread
    assert small.to_json()["lower_is_better"]


def test_without_metrics_there_are_decibels_only() -> None:
    sums, shape = batches(1)
    bare = attrs.evolve(
        sums[0],
        in_float=attrs.evolve(sums[0].in_float, states=()),
        in_integers=attrs.evolve(sums[0].in_integers, states=()),
        layers={
            name: attrs.evolve(
                layer, only=attrs.evolve(layer.only, states=()), without=attrs.evolve(layer.without, states=())
            )
            for name, layer in sums[0].layers.items()
        },
    )
    found = findings([bare], shape)
    assert found.metric == ""
    assert math.isnan(found.loss)
    assert all(math.isnan(layer.loss_alone) for layer in found.layers)
    assert found.network_db > 20


def test_utilisation_counts_the_steps_between_the_clamps() -> None:
    sums, shape = batches(1)
    stem = sums[0].layers["stem"]
    slots = np.zeros_like(stem.slots)
    slots[128:160] = 10  # 32 of the 128 steps that a ReLU leaves, equally often
    made = attrs.evolve(sums[0], layers={**sums[0].layers, "stem": attrs.evolve(stem, slots=slots, clipped=7)})
    layer = next(layer for layer in findings([made], shape, share).layers if layer.name == "stem")
    assert layer.utilisation == pytest.approx(32 / 128)
    assert layer.entropy_bits == pytest.approx(5.0)
    assert layer.clipping == pytest.approx(7 / stem.elements)


def test_candidates_are_what_observers_say_of_the_values() -> None:
    mixed, x = MixedNetwork(healthy()), images(8)
    found = findings([measure(mixed, [x])], outline(mixed))
    stem = next(layer for layer in found.layers if layer.name == "stem")
    with torch.no_grad():
        y = mixed.network.float_values([x], keep=True)["stem"]
    thresholds = {candidate.observer: candidate.threshold for candidate in stem.candidates}
    assert list(thresholds) == ["min_max", "moving_average", "percentile", "mse", "kl"]
    assert thresholds["min_max"] == pytest.approx(float(y.max()))
    assert thresholds["percentile"] == pytest.approx(float(torch.quantile(y.abs(), 0.99975)), rel=0.05)
    present = next(candidate for candidate in stem.candidates if candidate.observer == "min_max")
    assert present.gain_db == pytest.approx(0.0, abs=0.05), "the network was calibrated with it"
    assert next(layer for layer in found.layers if layer.name == "img").candidates == ()


def test_layers_that_hurt_are_first() -> None:
    sums, shape = batches(1)
    found = findings(sums, shape, share)
    assert worst_layers(found) == []
    layers = [attrs.evolve(layer, hurts=layer.name in ("project", "head")) for layer in found.layers]
    hurting = attrs.evolve(found, layers=tuple(layers))
    assert [layer.name for layer in hurting.ranked()][:2] == worst_layers(hurting)
    assert set(worst_layers(hurting)) == {"project", "head"}
    assert len(worst_layers(hurting, 1)) == 1
    rest = [layer.share for layer in hurting.ranked()[2:]]
    assert rest == sorted(rest, reverse=True)


def test_a_loss_that_no_layer_makes_is_spread() -> None:
    sums, shape = batches(1)
    found = findings(sums, shape, share)
    assert not attrs.evolve(found, metrics_float={"m": 0.9}, metrics_quantized={"m": 0.899}).spread
    lossy = attrs.evolve(found, metrics_float={"m": 0.9}, metrics_quantized={"m": 0.88})
    assert lossy.spread
    assert not attrs.evolve(lossy, layers=tuple(attrs.evolve(layer, hurts=True) for layer in lossy.layers)).spread
    assert not attrs.evolve(found, metrics_float={}, metrics_quantized={}).spread


def test_the_json_form_is_plain_and_complete(tmp_path: Any) -> None:
    sums, shape = batches(1)
    found: Sensitivity = findings(sums, shape, share)
    write_json(tmp_path / "out.json", found.to_json())
    plain = json.loads((tmp_path / "out.json").read_text())
    assert [layer["name"] for layer in plain["layers"]] == [layer.name for layer in found.layers]
    assert "histogram" not in plain["layers"][0]
    assert plain["layers"][0]["alone_db"] is None, "an infinite ratio"
    assert plain["layers"][1]["candidates"][0]["observer"] == "min_max"
