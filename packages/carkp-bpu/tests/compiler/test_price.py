"""Prices: sums, and times of work cut into tiles."""

from __future__ import annotations

import pytest

from carkp_bpu.compiler.group import group
from carkp_bpu.compiler.maps import Region
from carkp_bpu.compiler.price import Price, compute_price, parameter_price, transfer_price
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_bpu.march import find_march
from carkp_bpu.perf.cost import dma_cycles

MARCH = find_march("bayes")


def test_a_transfer_is_its_bursts_and_its_set_up():
    assert transfer_price(1000, 10, MARCH).transfer == dma_cycles(1000, 10, MARCH) + MARCH.dma_cycles
    assert parameter_price(1000, MARCH).early == dma_cycles(1000, 1, MARCH) + MARCH.dma_cycles
    assert transfer_price(0, 1, MARCH) == parameter_price(0, MARCH) == Price()


def test_engines_and_ddr_work_side_by_side_unless_one_waits_for_the_other():
    work = Price(compute=100.0, transfer=60.0, early=20.0)
    assert work.cycles(MARCH, 1, parallel=False) == 180
    assert work.cycles(MARCH, 1) == 100 + 60
    assert work.cycles(MARCH, 10) == 100 + 6
    assert Price(compute=10.0, transfer=60.0, early=20.0).cycles(MARCH, 10) == 80 + 1
    assert Price(instruction_bytes=766).cycles(MARCH, 1) == pytest.approx(100)


def test_prices_add_up():
    one = compute_price(10.0, MARCH) + transfer_price(64, 1, MARCH)
    assert one + one == one.times(2)


def test_a_layers_cycles_are_those_of_the_performance_model():
    """Two halves of a depthwise layer take what the whole does; a dense one fills its lanes."""
    net = NetworkBuilder((1, 16, 32, 32))
    net.conv(16, 3, groups=16)
    depthwise = group(net.graph()).layers[0].lowering
    whole = depthwise.cycles(Region((0, 32), (0, 32), (0, 16)), MARCH)
    half = depthwise.cycles(Region((8, 24), (0, 32), (0, 16)), MARCH)
    assert half == pytest.approx(whole / 2, rel=0.01)
    net = NetworkBuilder((1, 16, 32, 32))
    net.conv(33, 3)
    dense = group(net.graph()).layers[0].lowering
    cycles = {count: dense.cycles(Region((0, 32), (0, 32), (0, count)), MARCH) for count in (1, 32, 33)}
    assert cycles[1] == cycles[32] < cycles[33]
