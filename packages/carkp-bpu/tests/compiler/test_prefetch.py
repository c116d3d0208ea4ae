"""Prefetch: buffers of what is loaded begin earlier, those of results do not, and loads start under earlier layers."""

from __future__ import annotations

import pytest

from carkp_bpu.compiler.allocate import verify
from carkp_bpu.compiler.group import group
from carkp_bpu.compiler.placement import Target
from carkp_bpu.compiler.prefetch import prefetch
from carkp_bpu.compiler.reside import Menus, reside
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_bpu.compiler.search import search
from carkp_bpu.march import find_march

MARCH = find_march("bayes")


def placements(sram_bytes):
    net = NetworkBuilder((1, 4, 16, 16))
    for _ in range(9):
        net.conv(8, 3)
    model, target = group(net.graph()), Target(MARCH, sram_bytes, "O2")
    menus = Menus(model, target)
    yield reside(model, target, menus)
    yield from search(model, target, menus)


@pytest.mark.parametrize("sram_bytes", [3 << 10, 6 << 10, 1 << 16])
def test_loads_begin_earlier_and_everything_else_stays(sram_bytes):
    for plan in placements(sram_bytes):
        ahead = prefetch(plan, sram_bytes)
        verify(ahead.buffers, ahead.sram, sram_bytes)
        begins = {segment.span[0] for segment in plan.segments}
        for before, after in zip(plan.buffers, ahead.buffers, strict=True):
            assert (after.name, after.size, after.last) == (before.name, before.size, before.last)
            assert after.first <= before.first
            if after.first < before.first:
                assert "parameters" in after.name or "input" in after.name
                assert after.first in begins


def test_with_plenty_of_memory_parameters_come_six_segments_ahead():
    plan = next(placements(1 << 16))
    ahead = prefetch(plan, 1 << 16)
    firsts = {b.name: b.first for b in ahead.buffers}
    assert [firsts[f"layer {layer} parameters 0"] for layer in range(9)] == [0, 0, 0, 0, 0, 0, 0, 1, 2]
