"""Waits: what depends on another engine waits for it, what does not runs beside it."""

from __future__ import annotations

from carkp_bpu.compiler.schedule import add_waits
from carkp_bpu.hbm import isa


def load(sram: int, size: int = 64, ddr: int = 0) -> isa.Load:
    return isa.Load(isa.NO_WAITS, ddr, sram, (1, 1, 1, size), (0, 0, 0), (0, 0, 0))


def store(sram: int, ddr: int, size: int = 64) -> isa.Store:
    return isa.Store(isa.NO_WAITS, ddr, sram, (1, 1, 1, size), (0, 0, 0), (0, 0, 0))


def copy(source: int, target: int, size: int = 64) -> isa.Copy:
    return isa.Copy(isa.NO_WAITS, (1, 1, 1, size), isa.View(target, 1, (0, 0, 0, 1)), isa.View(source, 1, (0, 0, 0, 1)))


def waits(*instructions: isa.Instruction) -> list[isa.Four]:
    return [i.waits for i in add_waits(instructions, 4096, 4096)]


def test_a_reader_waits_for_its_writer_only():
    assert waits(load(0), load(128), copy(0, 256)) == [(0, 0, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0)]


def test_a_writer_waits_for_readers_and_writers_of_what_it_overwrites():
    assert waits(load(0), copy(0, 256), load(0)) == [(0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1)]
    assert waits(load(0), copy(512, 0))[1] == (1, 0, 0, 0)


def test_double_buffers_let_the_second_load_run_ahead():
    seen = waits(load(0), copy(0, 512), load(64), copy(64, 576), load(0))
    assert seen[2] == (0, 0, 0, 0)
    assert seen[4] == (0, 0, 0, 1), "the first buffer is free once the first copy has read it"


def test_dependencies_go_through_ddr():
    assert waits(copy(0, 64), store(64, 1024), load(128, ddr=1024))[2] == (0, 1, 0, 0)


def test_what_has_been_waited_for_is_not_waited_for_again():
    assert waits(load(0), copy(0, 256), copy(0, 320)) == [(0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0)]
