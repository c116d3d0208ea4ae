"""The rows that a layer needs are those that its tiles say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.group import group
from carkp_bpu.compiler.maps import Region, Tile
from carkp_bpu.compiler.rows import row_needs
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_core.ir import operators as ops


def conv(net):
    net.conv(5, (3, 2), (2, 1), dilation_hw=(2, 1), padding_tlbr=(3, 0, 1, 1))


def sparse(net):
    """Rows between the windows are read by none, and the first window lies on padding."""
    net.conv(4, 1, 3, padding_tlbr=(1, 0, 0, 0))


def residual(net):
    net.conv(4, 3, residual="img")


def deconv(net):
    net.deconv(3, 2, 3, padding_tlbr=(0, 0, 0, 0))


def pool(net):
    net.add(ops.MaxPool((3, 3), (2, 2), (1, 1, 1, 1)))


def resize(net):
    net.resize("bilinear", (31, 7))


def stacked(net):
    net.concat(2, "img", "img")


def padded(net):
    net.add(ops.Pad((4, 1, 3, 0), 1))


def broadcast(net):
    net.add_tensors("img", net.constant((1, 4, 1, 1)))


def row_slice(net):
    net.add(ops.Slice(2, 3, 16, 4))


@pytest.mark.parametrize("grow", [row_slice, conv, sparse, residual, deconv, pool, resize, stacked, padded, broadcast])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_tile_reads_from_the_first_rows_need_to_the_last_ones(grow, data):
    net = NetworkBuilder((1, 4, 17, 9))
    grow(net)
    lowering = group(net.graph()).layers[-1].lowering
    out, needs = lowering.output, row_needs(lowering)
    begin = data.draw(st.integers(0, out.height - 1))
    end = data.draw(st.integers(begin + 1, out.height))
    regions = lowering.regions(Tile(Region((begin, end), (0, out.width), (0, out.channels))))
    for region, need in zip(regions, needs, strict=True):
        if region is not None:
            assert region.rows == (need.begins[begin], need.ends[end - 1])
        assert (need.begins[1:] >= need.begins[:-1]).all()
        assert (need.ends[1:] >= need.ends[:-1]).all()
