"""Proof that a program only reads what it should: the machine's guards, run once before the first frame.

Addresses, strides and waits do not depend on data, so every fault that a guarded memory would raise while frames run
is found by one walk over the instructions. For every byte the walk keeps which tensor (and row of it) it holds,
which instruction wrote it and which instructions read it since.

Faults, each a BackendError naming instruction, layer and module path:

- an address outside the memory, or a store into the constants;
- a read of bytes never written;
- a read of bytes that hold something else than the debug table says: live data was overwritten;
- a read that no wait orders behind the write it depends on (missing barrier);
- a write that no wait orders behind earlier reads or writes of the same bytes by another engine (engine conflict);
- a wait for an instruction that has not been issued.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_bpu.hbm import counts, isa
from carkp_bpu.hbm.debug import ANY_ROW, NO_TENSOR, Operand
from carkp_bpu.hbm.encoding import encode
from carkp_bpu.hbm.footprint import Access, Box, accesses
from carkp_bpu.hbm.program import HbmProgram
from carkp_core.errors import BackendError

Int32Array = npt.NDArray[np.int32]

#: Rows of a state array: tensor, tensor's row, writing instruction, then the last reader of each engine.
_TENSOR, _ROW, _WRITER, _READER = 0, 1, 2, 3
_UNWRITTEN, _ANY = -2, -1
_CONSTANT_WRITER = -1
_OK, _FAULT_UNWRITTEN, _FAULT_STALE, _FAULT_BARRIER, _FAULT_CONFLICT = range(5)
_DIMENSIONS = 5


@frozen
class Traffic:
    """What a program moves and computes for one frame."""

    loaded_bytes: int
    stored_bytes: int
    instruction_bytes: int
    macs: int
    sram_peak_bytes: int

    @property
    def ddr_bytes(self) -> int:
        """Everything that crosses the DDR interface, instruction fetch included."""
        return self.loaded_bytes + self.stored_bytes + self.instruction_bytes


@frozen
class Proof:
    """A program without faults.

    ``uniform`` says for each access of each instruction whether all its bytes came from the constants, so that they
    are the same for every frame. ``spread`` names loads of constants that must reach every frame's memory
    all the same, since some instruction reads them together with a frame's own bytes.
    """

    traffic: Traffic
    accesses: tuple[tuple[Access, ...], ...] = field(repr=False)
    uniform: tuple[tuple[bool, ...], ...] = field(repr=False)
    spread: frozenset[int] = field(repr=False)


def prove(program: HbmProgram) -> Proof:
    """Walk over a program. Raises BackendError at the first fault."""
    walk = _Walk(program)
    uniform = tuple(walk.step(index, instruction) for index, instruction in enumerate(program.instructions))
    return Proof(walk.traffic(), tuple(walk.accesses), uniform, frozenset(walk.spread))


class _Walk:
    """State of both memories and of the engines' progress."""

    def __init__(self, program: HbmProgram) -> None:
        self._program = program
        about = program.description
        self._sram = _blank(_READER + len(isa.ENGINES), about.sram_bytes)
        # Only the DMA engines touch DDR; the constants are not followed byte by byte.
        self._ddr = _blank(_READER + 1, about.ddr_bytes - about.constant_bytes)
        self._constants = about.constant_bytes
        self._from_constants = np.zeros(about.sram_bytes, dtype=np.bool_)
        total = len(program.instructions)
        self._ordinals = np.zeros(total + 1, dtype=np.int32)
        self._engines = np.zeros(total + 1, dtype=np.int32)
        #: For each engine, what is known to be complete after its n-th instruction.
        self._after: list[list[npt.NDArray[np.int32]]] = [[np.zeros(len(isa.ENGINES), np.int32)] for _ in isa.ENGINES]
        self._loaded = self._stored = self._macs = self._peak = self._fetched = 0
        self.accesses: list[tuple[Access, ...]] = []
        self.spread: set[int] = set()
        self._admit_inputs()

    def _admit_inputs(self) -> None:
        tensors = {info.name: index for index, info in enumerate(self._program.debug.tensors)}
        for port in self._program.description.inputs:
            start = port.ddr - self._constants
            size = int(np.prod(port.shape)) * isa.DTYPE_CODES[port.dtype]
            region = self._ddr[:, start : start + size]
            region[_TENSOR] = tensors.get(port.name, _ANY)
            region[_ROW] = _ANY
            region[_WRITER] = _CONSTANT_WRITER

    def traffic(self) -> Traffic:
        return Traffic(self._loaded, self._stored, self._fetched, self._macs, self._peak)

    def step(self, index: int, instruction: isa.Instruction) -> tuple[bool, ...]:
        """Check one instruction and apply it; says which accesses are uniform."""
        engine = isa.ENGINES.index(instruction.ENGINE)
        known = self._start(index, instruction, engine)
        try:
            touched = accesses(instruction)
        except ValueError as error:
            raise self._fault(index, "an operand leaves its tensor", str(error)) from error
        operands = self._operands(index, touched)
        uniform = []
        for access, operand in zip(touched, operands, strict=True):
            self._check_bounds(index, access)
            uniform.append(self._uniform(access))
            self._check_access(index, engine, access, operand, known)
        if not all(u for u, a in zip(uniform, touched, strict=True) if not a.write):
            self._mark_spread(touched, uniform)
        self._after_write(instruction, touched, uniform)
        self._count(instruction)
        self.accesses.append(touched)
        return tuple(uniform)

    def _start(self, index: int, instruction: isa.Instruction, engine: int) -> Int32Array:
        history = self._after[engine]
        known = history[-1].copy()
        for other, needed in enumerate(instruction.waits):
            if needed >= len(self._after[other]):
                issued = len(self._after[other]) - 1
                name = isa.ENGINES[other]
                raise self._fault(
                    index,
                    "it waits for an instruction that has not been issued",
                    f"{needed} of {name}",
                    f"{issued} issued",
                )
            np.maximum(known, self._after[other][needed], out=known)
        finished = known.copy()
        finished[engine] = len(history)
        history.append(finished)
        self._engines[index] = engine
        self._ordinals[index] = len(history) - 1
        return known

    def _operands(self, index: int, touched: tuple[Access, ...]) -> tuple[Operand, ...]:
        table = self._program.debug.instructions
        if not table:
            return tuple(Operand(NO_TENSOR) for _ in touched)
        found = table[index].operands
        if len(found) != len(touched):
            raise self._fault(index, "the debug table lists other operands", f"{len(found)}", f"{len(touched)}")
        return found

    def _check_bounds(self, index: int, access: Access) -> None:
        about = self._program.description
        for box in access.boxes:
            size, first = about.ddr_bytes, 0
            if access.space == "sram":
                size = about.sram_bytes
            elif access.write:
                first = self._constants
            constant = access.space == "ddr" and box.end <= self._constants
            if not constant and access.space == "ddr":
                first = self._constants
            # No operand holds more than the SRAM; a count beyond it would only walk over the same bytes again.
            if box.address < first or box.end > size or math.prod(box.counts) > about.sram_bytes:
                raise self._fault(
                    index,
                    f"{access.role} lies outside {access.space.upper()}",
                    f"{math.prod(box.counts)} bytes in {box.address}..{box.end}",
                    f"{first}..{size}",
                )

    def _uniform(self, access: Access) -> bool:
        if access.write or not access.boxes:
            return False
        if access.space == "ddr":
            return all(box.end <= self._constants for box in access.boxes)
        return all(bool(_strided(self._from_constants, box).all()) for box in access.boxes)

    def _check_access(self, index: int, engine: int, access: Access, operand: Operand, known: Int32Array) -> None:
        on_chip = access.space == "sram"
        state, offset = (self._sram, 0) if on_chip else (self._ddr, self._constants)
        tensor = _ANY if operand.tensor == NO_TENSOR else operand.tensor
        for box in access.boxes:
            if not on_chip and box.end <= self._constants:
                continue
            row = _ANY if operand.row == ANY_ROW else operand.row if box.first_row is None else box.first_row
            walk = _write if access.write else _read
            code, place = walk(
                state, *_five(box, offset), tensor, row, index, engine, known, self._engines, self._ordinals
            )
            if code != _OK:
                raise self._access_fault(code, index, access, operand, state[:, place], place + offset)
            if on_chip:
                self._peak = max(self._peak, box.end)

    def _mark_spread(self, touched: tuple[Access, ...], uniform: list[bool]) -> None:
        """Find loads of constants that a read mixes with a frame's bytes."""
        for access, same in zip(touched, uniform, strict=True):
            if access.write or same or access.space == "ddr":
                continue
            for box in access.boxes:
                constant = _strided(self._from_constants, box)
                if constant.any():
                    self.spread.update(np.unique(_strided(self._sram[_WRITER], box)[constant]).tolist())

    def _after_write(self, instruction: isa.Instruction, touched: tuple[Access, ...], uniform: list[bool]) -> None:
        constant = isinstance(instruction, isa.Load) and uniform[0]
        if touched[-1].space == "sram":
            for box in touched[-1].boxes:
                _strided(self._from_constants, box)[...] = constant

    def _count(self, instruction: isa.Instruction) -> None:
        moved = counts.ddr_bytes(instruction)
        self._loaded += moved if isinstance(instruction, isa.Load) else 0
        self._stored += moved if isinstance(instruction, isa.Store) else 0
        self._macs += counts.macs(instruction)
        self._fetched += len(encode(instruction))

    def _access_fault(
        self, code: int, index: int, access: Access, operand: Operand, state: Int32Array, address: int
    ) -> BackendError:
        place = f"{access.role} at {access.space.upper()} address {address}"
        meant = f"{place} should hold {self._content(operand.tensor, operand.row)}"
        held = self._content(int(state[_TENSOR]), int(state[_ROW]))
        writer = int(state[_WRITER])
        author = "the input" if writer < 0 else self._program.debug.place(writer)
        if code == _FAULT_UNWRITTEN:
            return self._fault(index, "it reads bytes that were never written", meant)
        if code == _FAULT_STALE:
            return self._fault(index, "it reads bytes that were overwritten", f"{meant}, holds {held} of {author}")
        if code == _FAULT_BARRIER:
            return self._fault(index, "missing barrier: it does not wait for what it reads", f"{place}, from {author}")
        return self._fault(index, "engine conflict: it overwrites bytes still in use", f"{place}, {held} of {author}")

    def _content(self, tensor: int, row: int) -> str:
        tensors = self._program.debug.tensors
        name = tensors[tensor].name if 0 <= tensor < len(tensors) else "something"
        return f"{name} row {row}" if 0 <= row < ANY_ROW else name

    def _fault(self, index: int, message: str, seen: str, allowed: str | None = None) -> BackendError:
        instruction = self._program.instructions[index]
        where = f"{self._program.debug.place(index)}, {type(instruction).__name__.lower()} on {instruction.ENGINE}"
        return BackendError(message, where=where, seen=seen, allowed=allowed, remedy="compile the model again")


def _blank(rows: int, size: int) -> Int32Array:
    state = np.zeros((rows, size), dtype=np.int32)
    state[_TENSOR] = _UNWRITTEN
    return state


def _strided(memory: npt.NDArray[np.generic], box: Box) -> npt.NDArray[np.generic]:
    strides = tuple(stride * memory.itemsize for stride in box.strides)
    return np.lib.stride_tricks.as_strided(memory[box.address :], box.counts, strides)


def _five(box: Box, offset: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Address, counts and strides in five dimensions, rows first."""
    missing = _DIMENSIONS - len(box.counts)
    counts_ = (box.counts[0], *(1,) * missing, *box.counts[1:])
    strides = (box.strides[0], *(0,) * missing, *box.strides[1:])
    return box.address - offset, counts_, strides


@numba.njit(cache=True, nogil=True)
def _read(state, address, counts, strides, tensor, row, index, engine, known, engines, ordinals):  # type: ignore[no-untyped-def]
    """Check that every byte holds what it should and was written in time; note the reader."""
    for a in range(counts[0]):
        for b in range(counts[1]):
            for c in range(counts[2]):
                for d in range(counts[3]):
                    base = address + a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]
                    for place in range(base, base + counts[4]):
                        held = state[0, place]
                        if held == -2:
                            return 1, place
                        if tensor >= 0 and held >= 0 and held != tensor:
                            return 2, place
                        if row >= 0 and state[1, place] >= 0 and state[1, place] != row + a:
                            return 2, place
                        writer = state[2, place]
                        if writer >= 0 and engines[writer] != engine and ordinals[writer] > known[engines[writer]]:
                            return 3, place
                        state[3 + engine, place] = ordinals[index]
    return 0, 0


@numba.njit(cache=True, nogil=True)
def _write(state, address, counts, strides, tensor, row, index, engine, known, engines, ordinals):  # type: ignore[no-untyped-def]
    """Check that nobody still uses the bytes; note writer and contents."""
    readers = state.shape[0] - 3
    for a in range(counts[0]):
        for b in range(counts[1]):
            for c in range(counts[2]):
                for d in range(counts[3]):
                    base = address + a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]
                    for place in range(base, base + counts[4]):
                        writer = state[2, place]
                        written = state[0, place] != -2 and writer >= 0
                        if written and engines[writer] != engine and ordinals[writer] > known[engines[writer]]:
                            return 4, place
                        for other in range(readers):
                            if other != engine and state[3 + other, place] > known[other]:
                                return 4, place
                        state[0, place] = tensor
                        state[1, place] = row + a if row >= 0 else -1
                        state[2, place] = index
    return 0, 0
