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
    progress = _Progress()
    scheduled: list[isa.Instruction] = []
    for instruction in instructions:
        engine = isa.ENGINES.index(instruction.ENGINE)
        touched = accesses(instruction)
        needed = np.zeros(len(isa.ENGINES), dtype=np.int64)
        for access in touched:
            np.maximum(needed, memories[access.space].hazards(access), out=needed)
        waits, ordinal = progress.issue(engine, needed)
        for access in touched:
            memories[access.space].note(access, engine, ordinal)
        scheduled.append(attrs.evolve(instruction, waits=waits))
    return tuple(scheduled)


class _Progress:
    """What is known to be complete after each instruction of each engine."""

    def __init__(self) -> None:
        self._after = [[np.zeros(len(isa.ENGINES), dtype=np.int64)] for _ in isa.ENGINES]

    def issue(self, engine: int, needed: npt.NDArray[np.int64]) -> tuple[isa.Four, int]:
        """The waits of the engine's next instruction, and its ordinal.

        What the engine itself has done or waited for, and what another of the waits implies, is not waited for.
        """
        known = self._after[engine][-1].copy()
        wanted = [other for other in range(len(isa.ENGINES)) if needed[other] > known[other]]
        waits = [0] * len(isa.ENGINES)
        for other in wanted:
            rest = (self._after[third][needed[third]] for third in wanted if third != other)
            if not any(implied[other] >= needed[other] for implied in rest):
                waits[other] = int(needed[other])
                np.maximum(known, self._after[other][waits[other]], out=known)
        ordinal = len(self._after[engine])
        known[engine] = ordinal
        self._after[engine].append(known)
        return (waits[0], waits[1], waits[2], waits[3]), ordinal


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
