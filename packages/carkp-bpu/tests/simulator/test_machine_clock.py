"""The machine's clock and the performance model's timeline find the same number of cycles."""

from __future__ import annotations

import attrs
import pytest

from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.samples import NetworkBuilder, efficientnet_keypoints
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import MARCHES, find_march
from carkp_bpu.perf.timeline import timeline
from carkp_bpu.simulator.machine import cycles
from carkp_bpu.simulator.machine_clock import count_cycles
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError


def compiled(graph, march: str, opt: str, sram_bytes: int | None) -> HbmProgram:
    options = CompileOptions(march=march, name="net", hbm="net.hbm", out_dir=".", opt=opt, sram_bytes=sram_bytes)
    return compile_graph(graph, find_march(march), options).program


@pytest.mark.parametrize("march", [march.name for march in MARCHES])
@pytest.mark.parametrize(("opt", "sram_bytes"), [("O0", 1 << 17), ("O1", 1 << 17), ("O2", 1 << 17), ("O2", None)])
def test_cycles_equal_the_timeline(march, opt, sram_bytes):
    program = compiled(efficientnet_keypoints(64), march, opt, sram_bytes)
    assert cycles(program) == timeline(program, find_march(march)).cycles


def test_cycles_without_debug_table_equal_the_timeline():
    net = NetworkBuilder((1, 3, 32, 32))
    net.add_tensors(net.conv(8, 3), net.conv(8, 1))
    program = compiled(net.graph(), "bayes", "O2", 8192)
    bare = attrs.evolve(program, debug=attrs.evolve(program.debug, instructions=(), pieces=()))
    assert cycles(bare) == timeline(bare, find_march("bayes")).cycles < cycles(program)


def test_two_transfers_share_the_ddr_and_their_set_ups_overlap():
    """By hand: a load and a store start together; the store's bytes wait for the load's."""
    march = find_march("bayes")
    dims = (1, 1, 1, 7660)
    load = isa.Load(isa.NO_WAITS, 0, 0, dims, (0, 0, 0), (0, 0, 0))
    store = isa.Store(isa.NO_WAITS, 8192, 8192, dims, (0, 0, 0), (0, 0, 0))
    net = NetworkBuilder((1, 3, 32, 32))
    net.conv(8, 3)
    program = compiled(net.graph(), "bayes", "O2", None)
    alone, both = (count_cycles(program.with_instructions(chosen), march) for chosen in ([load], [load, store]))
    # At 7.66 bytes a cycle 7660 bytes are 120 bursts of 64, 1003 cycles; records of 72 bytes are fetched first.
    assert (alone, both) == (17 + 128 + 1003, 26 + 128 + 1003 + 1003)
    assert count_cycles(program.with_instructions([]), march) == 0


def test_instructions_that_wait_for_each_other_never_end():
    net = NetworkBuilder((1, 3, 32, 32))
    net.conv(8, 3)
    program = compiled(net.graph(), "bayes", "O2", None)
    first = attrs.evolve(program.instructions[0], waits=(0, 0, 1, 0))
    stuck = program.with_instructions([first, *program.instructions[1:]])
    with pytest.raises(BackendError, match="never ends") as caught:
        count_cycles(stuck, find_march("bayes"))
    assert "instruction 0 on dma_in" in str(caught.value.seen)
