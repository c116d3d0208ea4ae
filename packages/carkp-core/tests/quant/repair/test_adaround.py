"""Learned rounding: better than nearest, on whole steps, the same after a checkpoint and in integers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exact_networks import differing
from repair_nets import KeypointNet, calibrate, float_outputs, images, lively, noise_share, prepared
from torch import nn

from carkp_core.errors import ConfigError
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.adaround import AdaRound, rounding_sqnr_db
from carkp_core.quant.repair.bias_correction import BiasCorrection
from carkp_core.quant.repair.int16 import Int16
from carkp_core.quant.repair.side_by_side import float_reference
from carkp_core.quant.settings import quant_settings
from carkp_core.quant.types import set_types


def coarse(mode: str = "fuse_bn") -> QuantizedNetwork:
    """Rounding the weights of two layers is what costs: one weight of a row is 40 times the rest, tensors are int16."""
    net = lively(KeypointNet(), 3)
    with torch.no_grad():
        for conv in (net.blocks[1].project[0], net.final):  # type: ignore[index,union-attr]
            conv.weight[:, 0] *= 40.0  # type: ignore[union-attr,operator]
    network = prepared(net, settings=quant_settings(mode))
    set_types(network, {step.name: "int16" for step in network.steps})
    return network


@pytest.mark.parametrize("mode", ["fuse_bn", "with_bn"])
def test_the_worst_layers_improve_on_other_images_too(mode: str) -> None:
    seen, x = images(48, seed=1), images(32, seed=2)
    network = coarse(mode)
    wanted = float_outputs(network, x)
    calibrate(network, seen)
    before = noise_share(network, x, wanted)
    AdaRound(worst=2, samples=48, iterations=150).after_calibration(network, [(seen,)])
    report = network.repairs[0]
    assert set(report["layers"]) == {"blocks.1.project.0", "final"}
    for entry in report["layers"].values():
        assert entry["error_learned"] < entry["error_nearest"]
        assert 0 < entry["changed_weights"] < entry["weights"]
    assert report["layers"]["final"]["error_learned"] < 0.87 * report["layers"]["final"]["error_nearest"]
    assert report["output_sqnr_db_after"] > report["output_sqnr_db_before"]
    assert noise_share(network, x, wanted) < 0.9 * before
    # Evaluation, the integer model, and both after a checkpoint: one answer.
    graph = convert(network, "net")
    assert differing(network, graph, x) == {}
    fresh = coarse(mode)
    fresh.load_state_dict(network.state_dict())
    assert convert(fresh, "net").digest() == graph.digest()


def test_weights_stand_on_whole_steps_and_the_steps_stay() -> None:
    seen = images(32)
    network = calibrate(coarse(), seen)
    layer: Any = network.layer("final")
    scale_w = layer.rows(layer.weight).detach().abs().amax(dim=1) / 127
    AdaRound("final", samples=32, iterations=60).after_calibration(network, [(seen,)])
    rows = layer.rows(layer.weight).detach()
    assert torch.allclose(rows.abs().amax(dim=1) / 127, scale_w, rtol=1e-6)
    steps = rows / scale_w[:, None]
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_the_worst_layers_are_those_whose_rounding_costs_most() -> None:
    seen = images(32)
    network = calibrate(coarse(), seen)
    AdaRound("final", samples=32, iterations=40).after_calibration(network, [(seen,)])
    left = rounding_sqnr_db(network, [(seen,)], ["blocks.1.project.0", "final"])
    assert left["final"] > 100 > left["blocks.1.project.0"]
    AdaRound(worst=1, samples=32, iterations=40).after_calibration(network, [(seen,)])
    assert [list(report["layers"]) for report in network.repairs] == [["final"], ["blocks.1.project.0"]]


def test_the_float_network_is_the_one_before_any_repair() -> None:
    """A bias correction before it must not look like an error of the weights, nor the other way round."""
    seen, x = images(48, seed=1), images(32, seed=2)
    network = coarse()
    wanted = float_outputs(network, x)
    calibrate(network, seen)
    passes = [AdaRound(worst=1, samples=48, iterations=20), BiasCorrection(samples=48), BiasCorrection(samples=48)]
    for repair in passes:
        repair.before_calibration(network, [(seen,)])
    for repair in passes:
        repair.after_calibration(network, [(seen,)])
    learned, corrected, again = network.repairs
    assert corrected["output_sqnr_db_before"] == pytest.approx(learned["output_sqnr_db_after"], abs=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(float_outputs(float_reference(network), x), wanted, strict=True))
    # The second correction finds almost nothing: it measures against the same float network.
    first, second = (
        max(entry["greatest_correction_steps"] for entry in report["layers"].values()) for report in (corrected, again)
    )
    assert second < 0.5 * first
    assert again["output_sqnr_db_after"] == pytest.approx(corrected["output_sqnr_db_after"], abs=0.3)


def test_rows_whose_steps_would_change_keep_their_weights() -> None:
    """With an int16 input a row's steps depend on all its weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 512, 1), nn.ReLU(), nn.Conv2d(512, 4, 3)).eval()
    seen = images(8)
    network = prepared(net)
    repair = Int16("0")
    repair.before_calibration(network, [(seen,)])
    calibrate(network, seen)
    repair.after_calibration(network, [(seen,)])
    assert network.repairs[0]["weight_bits_lost"]
    AdaRound("2", samples=8, iterations=20).after_calibration(network, [(seen,)])
    assert differing(network, convert(network, "net"), seen) == {}
    entry = network.repairs[1]["layers"]["2"]
    assert entry["error_learned"] <= entry["error_nearest"]


def test_a_pattern_that_leaves_nothing_says_why() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.shared = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.max_pool2d(self.shared(self.shared(self.own(x)).relu()).sigmoid(), 2)

    x = images(4)
    network = prepared(Mixed().eval())
    (pool,) = network.output_names
    for pattern, said in (("shared*", "shared shares its weights with another layer"), (pool, "has no weights")):
        repair = AdaRound(["own", pattern], samples=4, iterations=2)
        with pytest.raises(ConfigError, match="can be used") as caught:  # before anything is observed
            repair.before_calibration(network, [(x,)])
        assert said in (caught.value.seen or "")
        assert caught.value.allowed == "own"
    # Of several that match, one is enough.
    calibrate(network, x)
    AdaRound("*", samples=4, iterations=2).after_calibration(network, [(x,)])
    assert list(network.repairs[0]["layers"]) == ["own"]


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match="worst, samples and iterations"):
        AdaRound(iterations=0)
    network = calibrate(coarse(), images(4))
    with pytest.raises(ConfigError, match="no layer matches 'head'"):
        AdaRound("head").after_calibration(network, [(images(4),)])
