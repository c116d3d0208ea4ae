"""The fit's networks against the published cost of each, and the fit's error."""

from __future__ import annotations

import statistics

import pytest

from carkp_bpu.march import find_march
from carkp_bpu.perf.layers import schedule
from carkp_bpu.perf.measurements import MEASUREMENTS, Measurement
from carkp_bpu.perf.networks import NETWORKS

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


def error(row: Measurement) -> float:
    march = find_march(row.march)
    estimated_ms = 1e3 * schedule(NETWORKS[row.network](), march)[-1].end / march.clock_hz
    return estimated_ms / row.device_ms - 1


@pytest.mark.parametrize("row", MEASUREMENTS, ids=lambda row: f"{row.march}-{row.network}")
def test_each_estimate_is_within_a_quarter_of_its_measurement(row: Measurement) -> None:
    assert abs(error(row)) < 0.25


def test_held_out_rows_are_no_worse_than_fitted_ones() -> None:
    held = [abs(error(row)) for row in MEASUREMENTS if row.held_out]
    fitted = [abs(error(row)) for row in MEASUREMENTS if not row.held_out]
    assert len(held) >= 2
    assert statistics.mean(held) <= statistics.mean(fitted) < 0.12
