"""The float network and the quantized one beside each other: what their outputs differ by."""

from __future__ import annotations

import pytest
import torch
from repair_nets import TwoUnits, calibrate, images, prepared

from carkp_core.quant.layer import float_input
from carkp_core.quant.repair.side_by_side import MOST_DB, decibels, mean_noise, output_sqnr_db


def test_every_output_counts_alike_in_whatever_unit() -> None:
    x = images(8)
    found = []
    for unit in (1.0, 1000.0):
        network = calibrate(prepared(TwoUnits(unit)), x)
        found.append(output_sqnr_db(network, [(x[:3],), (x[3:],)], network))
    with torch.no_grad():
        wanted, got = network.float_values([x]), network.integer_values([x])
    ratios = [
        float((float_input(got[name]) - wanted[name]).square().sum() / wanted[name].square().sum())
        for name in network.output_names
    ]
    assert ratios[1] > 1.2 * ratios[0]  # else the mean and the loud output alone are the same
    assert found == [pytest.approx(decibels(1.0, sum(ratios) / 2), abs=0.01)] * 2


def test_outputs_of_zeros() -> None:
    assert mean_noise({"a": 4.0, "b": 0.0}, {"a": 1.0, "b": 0.0}) == 0.125
    assert mean_noise({"a": 4.0, "b": 0.0}, {"a": 1.0, "b": 0.1}) == 0.625
    assert decibels(1.0, mean_noise({"a": 0.0}, {"a": 0.0})) == MOST_DB
