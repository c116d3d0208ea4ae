"""What equalization could gain: against noise counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from exact_networks import calibrated
from sensitive_nets import broken, healthy, images
from torch import nn

from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.channel_scales import FIXED, ChannelScales, channel_scales
from carkp_core.quant.sensitivity import balance


def scales_of(network: QuantizedNetwork) -> ChannelScales:
    return channel_scales(network, [torch.zeros(shape) for shape in network.input_shapes.values()])


def test_a_tensor_of_equal_channels_gains_nothing() -> None:
    variables, ones = np.arange(1, 9), np.ones(8)
    assert balance.output_gain_db(ones * 3.0, 3.0, ones, variables) == 0.0
    assert balance.weight_gain_db(ones, ones) == 0.0


def test_one_loud_channel_of_eight() -> None:
    absmax = np.ones(8)
    absmax[2] = 50.0
    found = balance.output_gain_db(absmax, 50.0, np.ones(8), np.arange(1, 9))
    assert found == pytest.approx(10 * math.log10(8 * 2500 / (2500 + 7)))
    undone = np.ones(8)
    undone[2] = 1 / 2500  # its reader has weights 50 times smaller
    found = balance.output_gain_db(absmax, 50.0, undone, np.arange(1, 9))
    assert found == pytest.approx(10 * math.log10((7 * 2500 + 1) / (7 + 1)))


def test_silent_channels_do_not_count() -> None:
    absmax = np.array([1.0, 1.0, 0.0, 0.0])
    assert balance.output_gain_db(absmax, 1.0, np.ones(4), np.arange(1, 5)) == 0.0
    assert balance.output_gain_db(np.zeros(4), 1.0, np.ones(4), np.arange(1, 5)) == 0.0


def test_channels_that_cannot_be_scaled_gain_nothing() -> None:
    absmax = np.array([0.02, 0.02, 1.0])
    assert balance.output_gain_db(absmax, 1.0, np.ones(3), np.full(3, FIXED)) == 0.0
    assert balance.output_gain_db(absmax, 1.0, np.ones(3), np.arange(1, 4)) > 4.0


def test_clipped_ranges_count_as_far_as_the_step_reaches() -> None:
    absmax = np.array([9.0, 9.0])
    assert balance.output_gain_db(absmax, 3.0, np.ones(2), np.arange(1, 3)) == 0.0


def test_weights_that_use_few_steps_for_a_loud_channel() -> None:
    used, ranges = np.array([1.0, 1.0, 0.02]), np.array([1.0, 1.0, 50.0])
    expected = 10 * math.log10((2 + 2500) / (2 + 1))
    assert balance.weight_gain_db(ranges, used) == pytest.approx(expected)


def test_tensors_without_channels_say_nothing() -> None:
    assert balance.output_gain_db(np.zeros(0), 1.0, np.zeros(0), np.zeros(0, np.int64)) == 0.0
    assert balance.weight_gain_db(np.zeros(0), np.zeros(0)) == 0.0
    assert balance.weight_gain_db(np.ones(3), np.zeros(0)) == 0.0


def test_importance_is_the_energy_of_the_weights_that_read_a_channel() -> None:
    network = healthy()
    scales = scales_of(network)
    variables = balance.channel_variables(scales, "depthwise")
    found = balance.importance(scales, "depthwise", variables)
    weight = network.layer("project").weight.detach().double()  # type: ignore[union-attr,operator]
    np.testing.assert_allclose(found, (weight**2).sum((0, 2, 3)).numpy(), rtol=1e-6)


def test_reach_is_the_largest_share_of_a_rows_steps() -> None:
    network = broken("depthwise")
    scales = scales_of(network)
    project = next(weighted for weighted in scales.weighted if weighted.name == "project")
    found = balance.reach(project, scales.count, balance.channel_variables(scales, "depthwise"))
    weight = network.layer("project").weight.detach().abs()[:, :, 0, 0]  # type: ignore[union-attr,operator]
    np.testing.assert_allclose(found, (weight / weight.amax(1, keepdim=True)).amax(0).numpy(), rtol=1e-6)
    assert found[[1, 5, 9]].max() < 0.05
    depthwise = next(weighted for weighted in scales.weighted if weighted.name == "depthwise")
    alone = balance.reach(depthwise, scales.count, balance.channel_variables(scales, "stem"))
    np.testing.assert_array_equal(alone, np.ones(16), err_msg="one input channel in each row")


def test_behind_a_table_nothing_may_be_scaled() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Conv2d(4, 4, 1))
    scales = scales_of(calibrated(net, images(2)))
    assert (balance.channel_variables(scales, "0") == FIXED).all()
    assert balance.channel_variables(scales, "nothing").size == 0


def test_imbalance_leaves_silent_channels_out() -> None:
    assert balance.imbalance(np.array([0.0, 0.0, 1.0, 1.0, 1.0, 40.0])) == 40.0
    assert balance.imbalance(np.array([])) == 1.0
    assert balance.imbalance(np.zeros(4)) == 1.0
