"""Waits: the least that orders every instruction behind those it depends on, and no more.

Before: instructions in program order, without waits. After: the same, each waiting for the last instruction of each
other engine that wrote what it reads (or wrote or read what it writes). The order within an engine needs no waits.

Memory is watched in granules, so that two neighbours in one granule count as dependent; that only makes a wait
earlier, never too late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
import numpy as np
import numpy.typing as npt

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.footprint import Access, Box, accesses

_SRAM_GRANULE = 16
_DDR_GRANULE = 64


def add_waits(instructions: Iterable[isa.Instruction], sram_bytes: int, ddr_bytes: int) -> tuple[isa.Instruction, ...]:
    """The instructions with their waits."""
    memories = {"sram": _Memory(sram_bytes, _SRAM_GRANULE), "ddr": _Memory(ddr_bytes, _DDR_GRANULE)}
    issued = np.zeros(len(isa.ENGINES), dtype=np.int64)
    waited = np.zeros((len(isa.ENGINES), len(isa.ENGINES)), dtype=np.int64)
    scheduled: list[isa.Instruction] = []
    for instruction in instructions:
        engine = isa.ENGINES.index(instruction.ENGINE)
        touched = accesses(instruction)
        needed = np.zeros(len(isa.ENGINES), dtype=np.int64)
        for access in touched:
            np.maximum(needed, memories[access.space].hazards(access), out=needed)
        # An engine that has waited for something once need not again.
        needed[needed <= waited[engine]] = 0
        needed[engine] = 0
        np.maximum(waited[engine], needed, out=waited[engine])
        issued[engine] += 1
        for access in touched:
            memories[access.space].note(access, engine, int(issued[engine]))
        a, b, c, d = (int(count) for count in needed)
        scheduled.append(attrs.evolve(instruction, waits=(a, b, c, d)))
    return tuple(scheduled)


class _Memory:
    """For every granule and engine: the ordinal of its last writer and of its last reader."""

    def __init__(self, size: int, granule: int) -> None:
        count = -(-size // granule) + 1
        self._granule = granule
        self._writers: npt.NDArray[np.int64] = np.zeros((len(isa.ENGINES), count), dtype=np.int64)
        self._readers: npt.NDArray[np.int64] = np.zeros((len(isa.ENGINES), count), dtype=np.int64)

    def hazards(self, access: Access) -> npt.NDArray[np.int64]:
        """For each engine, the instructions of it that must be complete before this access."""
        needed = np.zeros(len(isa.ENGINES), dtype=np.int64)
        for begin, end in self._granules(access):
            np.maximum(needed, self._writers[:, begin:end].max(axis=1), out=needed)
            if access.write:
                np.maximum(needed, self._readers[:, begin:end].max(axis=1), out=needed)
        return needed

    def note(self, access: Access, engine: int, ordinal: int) -> None:
        """Record an access."""
        table = self._writers if access.write else self._readers
        for begin, end in self._granules(access):
            table[engine, begin:end] = ordinal

    def _granules(self, access: Access) -> Iterator[tuple[int, int]]:
        for box in access.boxes:
            for begin, end in _stretches(box):
                yield begin // self._granule, -(-end // self._granule)


def _stretches(box: Box) -> Iterator[tuple[int, int]]:
    """Byte ranges that cover a box: one when its rows lie close, else one for each row."""
    inner = sum((count - 1) * stride for count, stride in zip(box.counts[1:], box.strides[1:], strict=True)) + 1
    if len(box.counts) == 1:
        yield box.address, box.address + box.counts[0]
        return
    rows, pitch = box.counts[0], box.strides[0]
    if rows == 1 or pitch <= inner + _SRAM_GRANULE:
        yield box.address, box.address + (rows - 1) * pitch + inner
        return
    for row in range(rows):
        begin = box.address + row * pitch
        yield begin, begin + inner
