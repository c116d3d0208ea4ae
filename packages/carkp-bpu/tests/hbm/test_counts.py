"""A layer's tiles add up to the layer."""

from __future__ import annotations

import math

import pytest

from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.samples import NetworkBuilder, efficientnet_keypoints
from carkp_bpu.hbm import counts, isa
from carkp_bpu.march import find_march
from carkp_core.backend import CompileOptions


def instructions(graph, sram_bytes=None):
    options = CompileOptions(march="bayes", name="net", hbm="net.hbm", out_dir=".", sram_bytes=sram_bytes)
    return compile_graph(graph, find_march("bayes"), options).program.instructions


@pytest.mark.parametrize("sram_bytes", [None, 200_000])
def test_the_shipped_network_has_its_documented_macs(sram_bytes):
    made = instructions(efficientnet_keypoints(), sram_bytes)
    assert sum(counts.macs(i) for i in made) == 227_331_584


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (2, 3), (1, 2), (5, 1)])
def test_tiles_of_a_transposed_convolution_add_up(kernel, stride):
    net = NetworkBuilder((1, 8, 11, 9))
    net.deconv(6, kernel, stride, padding_tlbr=(0, 0, 0, 0))
    made = instructions(net.graph(), 1200)
    assert sum(isinstance(i, isa.Deconv) for i in made) > 1
    assert sum(counts.macs(i) for i in made) == 8 * 11 * 9 * 6 * kernel * kernel


def test_transfers():
    load = isa.Load(isa.NO_WAITS, 0, 0, (4, 3, 2, 8), (48, 16, 8), (48, 16, 8))
    assert counts.ddr_bytes(load) == math.prod((4, 3, 2, 8))
    assert counts.dma_runs(load) == 1
    apart = isa.Load(isa.NO_WAITS, 0, 0, (4, 3, 2, 8), (100, 16, 8), (48, 16, 8))
    assert counts.dma_runs(apart) == 4
    gather = isa.Load(isa.NO_WAITS, 0, 0, (4, 3, 2, 1), (100, 30, 7), (6, 2, 1))
    assert counts.dma_runs(gather) == 24
    assert counts.output_elements(load) == 0
