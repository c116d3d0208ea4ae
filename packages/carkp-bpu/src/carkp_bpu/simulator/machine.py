"""The machine simulator: executes the instructions of an ``.hbm`` on modelled memories, and nothing else.

The walk of ``machine_guards`` proves once that the program is sound; after that a batch of frames runs together,
each instruction once for all of them: memories are [N, bytes]. Bytes that come from the constants are the same for
every frame and are kept once.

Legend: ``N`` frames of a batch.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import Piece, TensorInfo
from carkp_bpu.hbm.description import Port
from carkp_bpu.hbm.footprint import Access
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.simulator.machine_guards import Proof, Traffic, prove
from carkp_bpu.simulator.machine_kernels import KERNELS
from carkp_bpu.simulator.machine_operands import Operand, Target
from carkp_core.errors import BackendError

IntArray = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

#: Frames that run together; bounded by this many bytes of modelled memory.
_BATCH_FRAMES = 16
_BATCH_BYTES = 256 << 20

_PROOFS: weakref.WeakKeyDictionary[HbmProgram, Proof] = weakref.WeakKeyDictionary()


def run_program(program: HbmProgram, inputs: Mapping[str, IntArray], taps: Sequence[str] = ()) -> dict[str, IntArray]:
    """Execute a program.

    Parameters
    ----------
    program:
        A compiled program.
    inputs:
        One integer array [N, ...] for each input, of its declared dtype and shape (NCHW).
    taps:
        Further tensors of the model to return. A tensor that the compiler removed has no place and cannot be tapped.

    Returns
    -------
    dict
        Outputs and taps by name, in the model's own (NCHW) order.

    Raises
    ------
    BackendError
        When the program breaks a guard, an input does not fit, or a tap is unknown.
    """
    frames = _check_inputs(program, inputs)
    pieces = _pieces(program, taps)
    proof = inspect(program)
    per_frame = program.description.ddr_bytes + program.description.sram_bytes
    step = max(1, min(_BATCH_FRAMES, _BATCH_BYTES // max(per_frame, 1)))
    parts = [
        _run_batch(program, proof, {name: value[i : i + step] for name, value in inputs.items()}, pieces)
        for i in range(0, frames, step)
    ]
    if not parts:
        blank = {port.name: np.zeros((1, *port.shape[1:]), port.dtype) for port in program.description.inputs}
        return {name: value[:0] for name, value in _run_batch(program, proof, blank, pieces).items()}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def inspect(program: HbmProgram) -> Proof:
    """Prove a program sound, once. Raises BackendError naming the faulty instruction."""
    if program not in _PROOFS:
        try:
            _PROOFS[program] = prove(program)
        except MemoryError as error:
            about = program.description
            raise BackendError(
                "the program's memories are larger than this machine can model",
                seen=f"{about.sram_bytes} bytes of SRAM, {about.ddr_bytes} of DDR",
            ) from error
    return _PROOFS[program]


def traffic(program: HbmProgram) -> Traffic:
    """Bytes and products of one frame, counted from the instructions."""
    return inspect(program).traffic


def _run_batch(
    program: HbmProgram, proof: Proof, inputs: Mapping[str, IntArray], pieces: Mapping[str, list[Piece]]
) -> dict[str, IntArray]:
    about = program.description
    frames = len(next(iter(inputs.values())))
    memories = _Memories(program, frames)
    for port in about.inputs:
        memories.put(port, inputs[port.name])
    taps = {name: _Tap(program.debug.tensors[found[0].tensor], frames) for name, found in pieces.items()}
    due: dict[int, list[tuple[str, Piece]]] = {}
    for name, found in pieces.items():
        for piece in found:
            due.setdefault(piece.ready, []).append((name, piece))
    for index, instruction in enumerate(program.instructions):
        _execute(index, instruction, proof, memories)
        for name, piece in due.get(index, ()):
            taps[name].take(piece, memories)
    results = {port.name: memories.get(port) for port in about.outputs}
    return results | {name: tap.value() for name, tap in taps.items()}


def _execute(index: int, instruction: isa.Instruction, proof: Proof, memories: _Memories) -> None:
    touched, uniform = proof.accesses[index], proof.uniform[index]
    reads = {
        access.role: memories.source(access, same)
        for access, same in zip(touched, uniform, strict=True)
        if not access.write
    }
    kernel = KERNELS[type(instruction)]
    if isinstance(instruction, isa.Load) and uniform[0]:
        kernel(instruction, reads, Target(memories.shared_sram, touched[-1]))
        if index not in proof.spread:
            return
    kernel(instruction, reads, memories.target(touched[-1]))


class _Memories:
    """DDR and SRAM of every frame, and the bytes that all frames share."""

    def __init__(self, program: HbmProgram, frames: int) -> None:
        about = program.description
        self._constant_bytes = about.constant_bytes
        # Rows keep an alignment of 8 bytes, so that wider elements can be viewed in place.
        self._sram = np.zeros((frames, -(-about.sram_bytes // 8) * 8), dtype=np.uint8)
        self._ddr = np.zeros((frames, about.ddr_bytes - about.constant_bytes), dtype=np.uint8)
        self.shared_sram = np.zeros((1, self._sram.shape[1]), dtype=np.uint8)
        self._constants = np.frombuffer(program.constants, dtype=np.uint8)[None]

    def source(self, access: Access, uniform: bool) -> Operand:
        """Where an operand is read from."""
        if access.space == "sram":
            return Operand(self.shared_sram if uniform else self._sram, access)
        return Operand(self._constants, access) if uniform else Operand(self._ddr, access, self._constant_bytes)

    def target(self, access: Access) -> Target:
        """Where a result is written to."""
        return Target(self._sram, access) if access.space == "sram" else Target(self._ddr, access, self._constant_bytes)

    def put(self, port: Port, value: IntArray) -> None:
        """Lay an input [N, C, ...] into DDR."""
        dense = np.ascontiguousarray(np.moveaxis(value, 1, -1), dtype=np.dtype(port.dtype).newbyteorder("<"))
        raw = dense.view(np.uint8).reshape(len(value), -1)
        start = port.ddr - self._constant_bytes
        self._ddr[:, start : start + raw.shape[1]] = raw

    def get(self, port: Port) -> IntArray:
        """An output [N, C, ...] from DDR; it may lie in the constants."""
        size = math.prod(port.shape) * isa.DTYPE_CODES[port.dtype]
        begin = port.ddr - self._constant_bytes
        raw = self._constants[:, port.ddr : port.ddr + size] if begin < 0 else self._ddr[:, begin : begin + size]
        raw = np.broadcast_to(raw, (len(self._ddr), size))
        return _channels_first(np.ascontiguousarray(raw).view(np.dtype(port.dtype)), port.shape)

    def piece(self, piece: Piece, itemsize: int) -> Bytes:
        """Bytes [N, rows, columns, channels x itemsize] of a part of a tensor."""
        memory, address = self._sram, piece.address
        if piece.in_ddr:
            memory, address = self._ddr, piece.address - self._constant_bytes
            if address < 0:
                memory, address = (
                    np.broadcast_to(self._constants, (len(self._ddr), self._constants.shape[1])),
                    piece.address,
                )
        slots = (np.arange(*piece.rows) - piece.first_row) % piece.ring_rows * piece.row_pitch
        columns = (np.arange(*piece.columns) - piece.first_column) * piece.pixel_pitch
        channels = np.arange((piece.channels[1] - piece.channels[0]) * itemsize)
        return memory[:, address + slots[:, None, None] + columns[:, None] + channels]


class _Tap:
    """A tensor put together from its pieces."""

    def __init__(self, info: TensorInfo, frames: int) -> None:
        self._info = info
        height, width, channels = isa.map_shape(info.shape)
        self._value = np.zeros((frames, height, width, channels), dtype=info.dtype)

    def take(self, piece: Piece, memories: _Memories) -> None:
        """Copy one piece."""
        raw = memories.piece(piece, self._value.itemsize)
        region = (slice(*piece.rows), slice(*piece.columns), slice(*piece.channels))
        self._value[:, region[0], region[1], region[2]] = np.ascontiguousarray(raw).view(self._value.dtype)

    def value(self) -> IntArray:
        """The tensor [N, C, ...]."""
        return _channels_first(self._value, self._info.shape)


def _channels_first(dense: IntArray, shape: tuple[int, ...]) -> IntArray:
    """[N, any order of HWC elements] as [N, C, ...]; ``shape`` is (1, C, ...)."""
    if len(shape) < 2:
        return dense.reshape(-1, *shape[1:])
    return np.ascontiguousarray(np.moveaxis(dense.reshape(-1, *shape[2:], shape[1]), -1, 1))


def _check_inputs(program: HbmProgram, inputs: Mapping[str, IntArray]) -> int:
    frames = set()
    for name, (shape, dtype, _) in program.inputs.items():
        if name not in inputs:
            raise BackendError(f"input {name!r} is missing", seen=", ".join(inputs) or "no inputs")
        value = inputs[name]
        if value.dtype != dtype or value.ndim != len(shape) or value.shape[1:] != shape[1:]:
            raise BackendError(
                f"input {name!r} has another type",
                seen=f"{value.dtype} {value.shape}",
                allowed=f"{dtype} (N, {', '.join(map(str, shape[1:]))})",
            )
        frames.add(len(value))
    if len(frames) != 1:
        raise BackendError("inputs differ in their number of frames", seen=str(sorted(frames)))
    return frames.pop()


def _pieces(program: HbmProgram, taps: Sequence[str]) -> dict[str, list[Piece]]:
    numbers = {info.name: index for index, info in enumerate(program.debug.tensors) if info.shape}
    found: dict[str, list[Piece]] = {name: [] for name in taps if name not in program.outputs}
    for name in found:
        found[name] = [piece for piece in program.debug.pieces if piece.tensor == numbers.get(name, -1)]
        if not found[name]:
            known = [info.name for info in program.debug.tensors if info.shape]
            raise BackendError(
                f"the program holds no tensor {name!r}", where=program.name, allowed=", ".join(known[:20]) or "none"
            )
    return found
