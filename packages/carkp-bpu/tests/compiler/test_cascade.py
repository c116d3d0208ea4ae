"""Cascades: every row is made once, and is still in its ring when a reader comes for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.cascade import Cascades, Shape
from carkp_bpu.compiler.group import Model, group
from carkp_bpu.compiler.maps import Region, Tile
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_core.ir import operators as ops


def play(model: Model, shape: Shape) -> None:
    """Run a cascade on rings that remember which row lies in each slot."""
    held = {name: np.full(ring.slots, -1) for name, ring in shape.made.items()}
    held |= {name: np.full(ring.streaming_slots, -1) for name, ring in shape.taken.items()}
    for step in range(shape.steps):
        for name, ring in shape.taken.items():
            for row in range(int(ring.done[step - 1]) if step else ring.start, int(ring.done[step])):
                held[name][row % len(held[name])] = row
        for index in range(shape.first, shape.last + 1):
            layer = model.layers[index]
            out, done = layer.lowering.output, shape.made[layer.output].done
            rows = int(done[step - 1]) if step else 0, int(done[step])
            if rows[0] == rows[1]:
                continue
            assert rows[1] - rows[0] <= len(held[layer.output])
            regions = layer.lowering.regions(Tile(Region(rows, (0, out.width), (0, out.channels))))
            for name, region in zip(layer.inputs, regions, strict=True):
                for row in range(*(region.rows if region else (0, 0))):
                    assert held[name][row % len(held[name])] == row, f"{name} row {row} in step {step}"
            for row in range(*rows):
                held[layer.output][row % len(held[layer.output])] = row
    for index in range(shape.first, shape.last + 1):
        layer = model.layers[index]
        assert shape.made[layer.output].done[-1] == layer.lowering.output.height


def grow(net: NetworkBuilder, steps: int) -> None:
    rng = net.rng
    for _ in range(steps):
        _, channels, height, _ = net.shape()
        before = net.last
        match rng.choice(["conv", "wide", "pool", "deconv", "resize", "residual", "branches"]):
            case "conv":
                net.conv(4, int(rng.integers(1, 4)), int(rng.integers(1, 3)))
            case "wide" if height > 7:
                net.conv(4, (7, 1))
            case "pool":
                net.add(ops.MaxPool((2, 1), (2, 1), (0, 0, 0, 0)))
            case "deconv" if height < 60:
                net.deconv(3, 4, 2)
            case "resize" if height < 60:
                net.resize("nearest", (2 * height, 8))
            case "residual":
                net.conv(6, 3)
                net.conv(channels, 5 if height > 4 else 1, residual=before)
            case "branches":
                net.concat(1, net.conv(3, 3), net.conv(5, 1, source=before))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 5), height=st.integers(4, 40))
def test_rows_are_in_their_rings_when_they_are_read(seed, steps, height):
    net = NetworkBuilder((1, 4, height, 8), seed)
    net.conv(4, 3)
    grow(net, steps)
    model = group(net.graph())
    cascades = Cascades(model)
    last = len(model.layers) - 1
    for stripe in cascades.stripes(last)[-3:]:
        for shape in cascades.ending(last, stripe):
            play(model, shape)


def halo() -> NetworkBuilder:
    net = NetworkBuilder((1, 4, 32, 8))
    begin = net.conv(4, 3)
    net.conv(4, 3)
    net.conv(4, 3, residual=begin)
    return net


def test_a_ring_holds_the_halo_and_a_residuals_delay():
    shape = list(Cascades(group(halo().graph())).ending(2, 4))[-1]
    assert (shape.first, shape.steps) == (0, 8)
    assert shape.made["conv2d1"].done.tolist() == [5, 9, 13, 17, 21, 25, 29, 32]
    assert shape.made["conv2d0"].done.tolist() == [6, 10, 14, 18, 22, 26, 30, 32]
    assert shape.made["conv2d1"].slots == 4 + 2
    assert shape.made["conv2d0"].slots == 4 + 2, "the residual's rows are those in the middle of the halo"
    assert shape.taken["img"].streaming_slots == 7 + 4, "the first stripe with its halo, and the next under it"


def test_stripes_halve_the_last_layers_rows():
    assert Cascades(group(halo().graph())).stripes(2) == [16, 8, 4, 2, 1]


def test_a_layer_that_nothing_reads_goes_on_by_its_share():
    net = NetworkBuilder((1, 4, 32, 8))
    begin = net.conv(4, 3)
    side = net.conv(4, 3, 2)
    net.conv(4, 1, source=begin)
    shape = list(Cascades(group(net.graph(side, net.last))).ending(2, 8))[-1]
    assert shape.made[side].done.tolist() == [4, 8, 12, 16]


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda net: net.add(ops.Transpose((0, 1, 3, 2))), id="rows become columns"),
        pytest.param(lambda net: net.add(ops.Reshape((1, 4, 16, 16))), id="another name has other rows"),
    ],
)
def test_cascades_end_where_rows_cannot_be_followed(cut):
    net = halo()
    cut(net)
    net.conv(4, 1)
    model = group(net.graph())
    last = len(model.layers) - 1
    assert all(shape.first > 2 for shape in Cascades(model).ending(last, 4))
    assert any(shape.first == 0 for shape in Cascades(model).ending(2, 4))
