"""Corners of the machine's kernels that networks rarely reach."""

from __future__ import annotations

import numpy as np
import pytest

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.footprint import accesses
from carkp_bpu.simulator.machine_kernels import KERNELS
from carkp_bpu.simulator.machine_operands import Operand, Target


def run(instruction: isa.Instruction, memory: np.ndarray) -> None:
    touched = accesses(instruction)
    reads = {access.role: Operand(memory, access) for access in touched if not access.write}
    KERNELS[type(instruction)](instruction, reads, Target(memory, touched[-1]))


def test_every_instruction_has_a_kernel():
    assert set(KERNELS) == set(isa.INSTRUCTIONS)


def test_copy_transposes_and_broadcasts():
    memory = np.zeros((1, 64), np.uint8)
    memory[0, :6] = np.arange(6)
    output, source = isa.View(16, 1, (3, 1, 0, 0)), isa.View(0, 1, (1, 2, 0, 0))
    run(isa.Copy(isa.NO_WAITS, (2, 3, 1, 1), output, source), memory)
    assert memory[0, 16:22].tolist() == [0, 2, 4, 1, 3, 5]
    run(isa.Copy(isa.NO_WAITS, (2, 3, 1, 1), output, isa.View(5, 1, (0, 0, 0, 0))), memory)
    assert memory[0, 16:22].tolist() == [5] * 6


def test_clamp_keeps_int16_apart_from_its_bytes():
    memory = np.zeros((2, 32), np.uint8)
    memory[:, :8].view("<i2")[...] = [[-300, 299, 5, -1], [1, 2, 3, 4]]
    view = isa.View(0, 2, (0, 0, 0, 2))
    run(isa.Clamp(isa.NO_WAITS, (1, 1, 1, 4), isa.View(8, 2, (0, 0, 0, 2)), view, -256, 256), memory)
    assert memory[:, 8:16].view("<i2").tolist() == [[-256, 256, 5, -1], [1, 2, 3, 4]]


@pytest.mark.parametrize("entry", [1, 2])
def test_tables_of_each_channel(entry):
    memory = np.zeros((1, 2048), np.uint8)
    tables = np.arange(512).reshape(2, 256).astype("<i2" if entry == 2 else "i1")
    memory[0, 1024 : 1024 + tables.nbytes] = tables.view(np.uint8).ravel()
    memory[0, :2].view("i1")[...] = [-128, 127]
    output, source = isa.View(512, 2, (0, 0, 0, 2)), isa.View(0, 1, (0, 0, 0, 1))
    run(isa.Table(isa.NO_WAITS, (1, 1, 1, 2), output, source, 1024, 256, entry, 256 * entry), memory)
    assert memory[0, 512:516].view("<i2").tolist() == [tables[0, 0], tables[1, 255]]
