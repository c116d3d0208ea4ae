"""Every fault that the guards know, injected into a sound program."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import find_march
from carkp_bpu.simulator.machine_guards import prove
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError


@pytest.fixture(scope="module")
def program() -> HbmProgram:
    """Three convolutions in little memory, so that buffers are used again and rows stream through rings."""
    net = NetworkBuilder((1, 4, 24, 12))
    begin = net.conv(8, 3)
    net.conv(8, 3, groups=8)
    net.conv(8, 1, residual=begin)
    net.add_tensors(net.last, begin)
    chosen = CompileOptions(march="bayes", name="net", hbm="net.hbm", out_dir=".", opt="O1", sram_bytes=4000)
    made = compile_graph(net.graph(), find_march("bayes"), chosen).program
    prove(made)
    return made


def find(program: HbmProgram, wanted: Callable[[isa.Instruction], bool], skip: int = 0) -> int:
    found = [index for index, instruction in enumerate(program.instructions) if wanted(instruction)]
    return found[skip]


def changed(program: HbmProgram, index: int, **changes: object) -> HbmProgram:
    instructions = list(program.instructions)
    instructions[index] = attrs.evolve(instructions[index], **changes)
    return program.with_instructions(instructions)


def assert_fault(program: HbmProgram, match: str, index: int | None = None) -> BackendError:
    with pytest.raises(BackendError, match=match) as caught:
        prove(program)
    where = str(caught.value.where)
    assert "layer" in where
    assert "net." in where, "the module path is named"
    if index is not None:
        assert where.startswith(f"instruction {index},")
    return caught.value


def test_an_address_outside_the_memory(program):
    index = find(program, lambda i: isinstance(i, isa.Conv))
    output = attrs.evolve(program.instructions[index].output, address=program.description.sram_bytes - 4)
    fault = assert_fault(changed(program, index, output=output), "output lies outside SRAM", index)
    assert str(program.description.sram_bytes) in str(fault.allowed)


def test_a_store_into_the_constants(program):
    index = find(program, lambda i: isinstance(i, isa.Store))
    assert_fault(changed(program, index, ddr=0), "outside DDR", index)


def test_a_read_of_bytes_never_written(program):
    """The first load brings one byte less in every run."""
    index = find(program, lambda i: isinstance(i, isa.Load))
    dims = program.instructions[index].dims
    conv = find(program, lambda i: isinstance(i, isa.Conv))
    assert_fault(changed(program, index, dims=(*dims[:3], dims[3] - 1)), "never written", conv)


def test_live_data_overwritten(program):
    """A load of parameters goes where a layer's result still waits to be read; waits keep all engines in order."""
    conv = find(program, lambda i: isinstance(i, isa.Conv))
    address = program.instructions[conv].output.address
    faults = []
    for load, instruction in enumerate(program.instructions):
        if (
            load <= conv
            or not isinstance(instruction, isa.Load)
            or instruction.ddr >= program.description.constant_bytes
        ):
            continue
        done = [sum(engine == i.ENGINE for i in program.instructions[:load]) for engine in isa.ENGINES]
        try:
            prove(changed(program, load, sram=address, waits=tuple(done)))
        except BackendError as fault:
            faults.append((load, fault))
    named = [fault for load, fault in faults if fault.message == "it reads bytes that were overwritten"
             and f"of instruction {load}," in str(fault.seen)]  # fmt: skip
    assert named, "the instruction that overwrote it is named"
    for fault in named:
        assert "should hold" in str(fault.seen)
        assert "layer" in str(fault.where)


def test_the_row_that_a_ring_holds_counts(program):
    """Reading a ring one row further on finds rows of the right tensor, but not the right ones."""

    def rolling(instruction: isa.Instruction) -> bool:
        held = getattr(instruction, "input", None)
        return isinstance(held, isa.FeatureMap) and held.ring_rows < held.height and instruction.rows[0] > 4

    index = find(program, rolling)
    shifted = attrs.evolve(program.instructions[index].input, first_row=1)
    fault = assert_fault(changed(program, index, input=shifted), "overwritten", index)
    assert "row" in str(fault.seen)


def test_a_missing_barrier(program):
    index = find(program, lambda i: isinstance(i, isa.Conv) and any(i.waits))
    assert_fault(changed(program, index, waits=isa.NO_WAITS), "missing barrier", index)


def test_a_conflict_of_engines(program):
    """A computation that does not wait until the store before it has read the buffer."""
    index = find(program, lambda i: i.ENGINE in ("conv", "vector") and i.waits[1] > 0)
    a, _, c, d = program.instructions[index].waits
    assert_fault(changed(program, index, waits=(a, 0, c, d)), "engine conflict", index)


def test_a_wait_for_what_was_not_issued(program):
    assert_fault(changed(program, 0, waits=(0, 0, 7, 0)), "has not been issued", 0)


def test_more_rows_than_the_ring_holds(program):
    index = find(program, lambda i: isinstance(i, isa.Conv) and i.rows[1] - i.rows[0] > 1)
    small = attrs.evolve(program.instructions[index].output, ring_rows=1)
    assert_fault(changed(program, index, output=small), "leaves its tensor", index)


def test_operands_that_the_debug_table_does_not_list(program):
    infos = list(program.debug.instructions)
    infos[0] = attrs.evolve(infos[0], operands=infos[0].operands[:1])
    broken = attrs.evolve(program, debug=attrs.evolve(program.debug, instructions=tuple(infos)))
    assert_fault(broken, "lists other operands", 0)


def test_every_wait_of_the_compiler_is_needed(program):
    """Leaving out any single wait is a fault."""
    for index, instruction in enumerate(program.instructions):
        for engine in (e for e, count in enumerate(instruction.waits) if count):
            waits = [0 if e == engine else count for e, count in enumerate(instruction.waits)]
            assert_fault(changed(program, index, waits=waits), "missing barrier|engine conflict")


def test_a_count_that_would_walk_over_the_same_bytes_for_ever(program):
    index = find(program, lambda i: isinstance(i, isa.Load))
    endless = changed(program, index, dims=(1 << 31, 1, 1, 1), ddr_strides=(0, 0, 0), sram_strides=(0, 0, 0))
    assert_fault(endless, "outside", index)
