"""The fit's networks against the published cost of each, and the fit's error."""

from __future__ import annotations

import pytest

from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.march import find_march
from carkp_bpu.perf.graph import layers_of
from carkp_bpu.perf.graphs import GRAPHS
from carkp_bpu.perf.layers import schedule
from carkp_bpu.perf.measurements import MEASUREMENTS, Measurement
from carkp_bpu.perf.networks import NETWORKS
from carkp_bpu.perf.timeline import timeline
from carkp_core.backend import CompileOptions

KEYPOINTS = "EfficientNet-B0 keypoints"

#: Published multiply-accumulates in millions and parameters in millions, at 224x224.
PUBLISHED = {
    "MobileNetV1": (569, 4.2),
    "MobileNetV2": (300, 3.5),
    "ResNet18": (1814, 11.7),
    "GoogLeNet": (1500, 6.6),
    "MobileOne-S0": (275, 2.1),
    "MobileOne-S2": (1299, 7.8),
    "MobileOne-S4": (2978, 14.8),
    "RepVGG-A0": (1360, 8.3),
    "RepVGG-A2": (5120, 25.5),
    "FasterNet-T0": (340, 3.9),
    "FasterNet-T2": (1910, 15.0),
    "EfficientNet-B2": (660, 9.1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_costs_what_is_published(name: str) -> None:
    layers = NETWORKS[name]()
    macs = sum(layer.conv.macs for layer in layers if layer.conv) / 1e6
    weights = sum(layer.weight_bytes for layer in layers) / 1e6
    assert macs == pytest.approx(PUBLISHED[name][0], rel=0.03)
    assert weights == pytest.approx(PUBLISHED[name][1], rel=0.06)


def test_the_keypoint_network_is_the_designs() -> None:
    layers = NETWORKS["EfficientNet-B0 keypoints"]()
    assert sum(layer.conv.macs for layer in layers if layer.conv) == 227_331_584


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_of_a_network_is_the_network(name: str) -> None:
    """What is compiled for the fit has the products and parameters of the list of layers."""
    layers, made = NETWORKS[name](), layers_of(GRAPHS[name]())
    assert sum(layer.conv.macs for layer in made if layer.conv) == sum(one.conv.macs for one in layers if one.conv)
    weights = [sum(layer.weight_bytes for layer in some if layer.conv) for some in (made, layers)]
    assert weights[0] == weights[1]


def measured(march: str, network: str) -> float:
    (row,) = [row for row in MEASUREMENTS if (row.march, row.network) == (march, network)]
    return row.device_ms


@pytest.mark.parametrize(
    ("march", "network"),
    [("bayes-e", "MobileNetV1"), ("bayes-e", "RepVGG-A0"), ("bernoulli2", "ResNet18"), ("bayes", KEYPOINTS)],
)
def test_a_program_takes_the_time_that_was_measured(march: str, network: str) -> None:
    """As users meet the model: compiled, then timed instruction by instruction."""
    options = CompileOptions(march=march, name="net", hbm="net.hbm", out_dir=".")
    program = compile_graph(GRAPHS[network](), find_march(march), options).program
    estimated_ms = 1e3 * timeline(program, find_march(march)).cycles / find_march(march).clock_hz
    assert estimated_ms == pytest.approx(measured(march, network), rel=0.2)


@pytest.mark.parametrize("row", MEASUREMENTS, ids=lambda row: f"{row.march}-{row.network}")
def test_the_quick_estimate_by_layers_is_within_a_third(row: Measurement) -> None:
    march = find_march(row.march)
    estimated_ms = 1e3 * schedule(NETWORKS[row.network](), march)[-1].end / march.clock_hz
    assert estimated_ms == pytest.approx(row.device_ms, rel=0.34)


def test_some_rows_take_no_part_in_the_fit() -> None:
    assert sum(row.held_out for row in MEASUREMENTS) >= 2
