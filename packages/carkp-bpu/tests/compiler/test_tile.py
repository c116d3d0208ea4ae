"""Tiles cover a layer exactly, stay in their budget, and load shared rows once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.group import group
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_bpu.compiler.tile import Cuts, Streams, TileMenu, TileShape, plan_tiles
from carkp_bpu.march import find_march

MARCH = find_march("bayes")


def lowering(filters=20, kernel=3, stride=1, groups=1, size=(33, 17), channels=8):
    net = NetworkBuilder((1, channels, *size))
    net.conv(filters, kernel, stride, groups=groups)
    return group(net.graph()).layers[0].lowering


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(600, 30000),
    level=st.sampled_from(["O0", "O1", "O2"]),
    streams=st.sampled_from([Streams((True,), True), Streams((False,), True), Streams((True,), False)]),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
)
def test_tiles_cover_the_output_once_within_the_budget(budget, level, streams, kernel, stride):
    layer = lowering(kernel=kernel, stride=stride)
    found = TileMenu(Cuts(layer, MARCH), streams, level).choose(budget, at_any_cost=True)
    if found is None:
        return
    _, plan = found
    assert plan.sram_bytes <= budget
    covered = set()
    for tile in plan.tiles:
        region = tile.region
        for row in range(*region.rows):
            for channel in range(*region.channels):
                place = (row, region.columns, channel)
                assert place not in covered
                covered.add(place)
    areas = sum(math.prod(tile.region.counts) for tile in plan.tiles)
    assert areas == layer.output.height * layer.output.width * layer.output.channels


def test_rows_shared_by_tiles_are_loaded_once_from_o1_on():
    layer, streams = lowering(), Streams((True,), True)
    shape = TileShape(4, 17, 20, 3, True)
    tensor = layer.inputs[0]
    rolling, naive = (plan_tiles(Cuts(layer, MARCH), streams, shape, level) for level in ("O1", "O0"))

    def loaded(plan):
        return sum(math.prod(load.counts) for loads in plan.loads for load in loads if load is not None)

    assert loaded(rolling) == tensor.dense_bytes
    assert loaded(naive) == tensor.dense_bytes + 2 * 8 * 17 * 8, "two halo rows at each of eight seams"
    assert rolling.inputs[0].rows > naive.inputs[0].rows


def test_a_resident_layer_is_one_tile():
    _, plan = TileMenu(Cuts(lowering(), MARCH), Streams((False,), False), "O2").choose(1 << 20, at_any_cost=True)
    assert len(plan.tiles) == 1
    assert plan.output is None
    assert plan.inputs == (None,)


def test_slices_of_grouped_layers_begin_between_groups():
    layer = lowering(filters=24, groups=4)
    _, plan = TileMenu(Cuts(layer, MARCH), Streams((True,), True), "O1").choose(1500, at_any_cost=True)
    assert {tile.region.channels[0] % 6 for tile in plan.tiles} == {0}


@pytest.mark.parametrize("slots", [1, 2])
def test_parameters_of_each_slice_are_loaded_when_it_begins(slots):
    shape = TileShape(8, 17, 4, 3, True)
    plan = plan_tiles(Cuts(lowering(), MARCH), Streams((False,), True), shape, "O0" if slots == 1 else "O2")
    assert plan.parameter_slots == slots
    begins = [k for k, (_, load) in enumerate(plan.slots) if load]
    assert begins == [0, 5, 10, 15, 20]
