"""The machine simulator: executes the instructions of an ``.hbm`` on modelled memories, and nothing else.

Before the first frame, a program is proven sound (``machine_guards``) and made ready (``machine_steps``), once each.
Then batches of frames run, each frame with memories of its own.

Legend: ``N`` frames of a batch.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from carkp_bpu.hbm.debug import Piece
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import find_march
from carkp_bpu.simulator.lowering.fused_conv import vector_kernels_run
from carkp_bpu.simulator.machine_clock import count_cycles
from carkp_bpu.simulator.machine_guards import Proof, Traffic, prove
from carkp_bpu.simulator.machine_memory import Memories, Tap
from carkp_bpu.simulator.machine_steps import Prepared, prepare
from carkp_core.errors import BackendError
from carkp_core.ir.inputs import Declared, Door, check_batch

IntArray: TypeAlias = npt.NDArray[Any]
Inputs: TypeAlias = Mapping[str, IntArray]

#: Frames that run together; bounded by this many bytes of modelled memory.
_BATCH_FRAMES = 16
_BATCH_BYTES = 256 << 20
#: A step's index for what is there before the first one.
_BEFORE = -1

_PROOFS: weakref.WeakKeyDictionary[HbmProgram, Proof] = weakref.WeakKeyDictionary()
#: By program, then by whether the vector kernels are used.
_PREPARED: weakref.WeakKeyDictionary[HbmProgram, dict[bool, Prepared]] = weakref.WeakKeyDictionary()
#: Memories that no run uses now, to be used again.
_IDLE: weakref.WeakKeyDictionary[HbmProgram, Memories] = weakref.WeakKeyDictionary()
_IDLE_LOCK = threading.Lock()
#: Callers that come at once wait for one proof and one preparation.
_PREPARING = threading.RLock()


def run_program(
    program: HbmProgram, inputs: Inputs, taps: Sequence[str] = (), *, vectors: bool | None = None
) -> dict[str, IntArray]:
    """Execute a program.

    Parameters
    ----------
    program:
        A compiled program.
    inputs:
        One integer array [N, ...] for each input, of its declared dtype and shape (NCHW).
    taps:
        Further tensors of the model to return. A tensor that the compiler removed has no place and cannot be tapped.
    vectors:
        Use the vector kernels; by default where the CPU has what they need. False is exact as well, slower.

    Returns
    -------
    dict
        Outputs and taps by name, in the model's own (NCHW) order.

    Raises
    ------
    BackendError
        When the program breaks a guard, an input does not fit, or a tap is unknown.
    """
    inputs, frames = check_program_inputs(program, inputs)
    pieces = _pieces(program, taps)
    with _runner(program, frames, vectors) as (ready, memories):
        step = memories.frames
        parts = [
            _run_batch(program, ready, memories, {name: value[i : i + step] for name, value in inputs.items()}, pieces)
            for i in range(0, frames, step)
        ]
        if not parts:
            blank = {port.name: np.zeros((1, *port.shape[1:]), port.dtype) for port in program.description.inputs}
            whole = _run_batch(program, ready, memories, blank, pieces)
            return {name: value[:0] for name, value in whole.items()}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_program_inputs(program: HbmProgram, inputs: Inputs, where: str | None = None) -> tuple[Inputs, int]:
    """The inputs and the number of frames. Raises BackendError, naming ``where`` or the program, when one is wrong."""
    declared = [Declared(port.name, port.shape, port.dtype, port.scale) for port in program.description.inputs]
    return check_batch(declared, inputs, Door("the program", BackendError, where or program.name))


def inspect(program: HbmProgram) -> Proof:
    """Prove a program sound, once. Raises BackendError naming the faulty instruction."""
    with _PREPARING:
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


@contextlib.contextmanager
def _runner(program: HbmProgram, frames: int, vectors: bool | None) -> Iterator[tuple[Prepared, Memories]]:
    """A program made ready, and memories for a batch that nobody else uses meanwhile."""
    about = program.description
    most = max(1, min(_BATCH_FRAMES, _BATCH_BYTES // (about.ddr_bytes + about.sram_bytes)))
    on_vectors = vector_kernels_run() if vectors is None else vectors
    with _PREPARING:
        known = _PREPARED.setdefault(program, {})
        if on_vectors not in known:
            known[on_vectors] = prepare(program, inspect(program), most, on_vectors)
    with _IDLE_LOCK:
        memories = _IDLE.pop(program, None)
    wanted = max(1, min(frames, most))
    if memories is None or memories.frames < wanted:
        memories = Memories(program, wanted)
    yield known[on_vectors], memories
    with _IDLE_LOCK:
        _IDLE[program] = memories


def traffic(program: HbmProgram) -> Traffic:
    """Bytes and products of one frame, counted from the instructions."""
    return inspect(program).traffic


def cycles(program: HbmProgram) -> int:
    """Cycles of one frame on the program's march, counted as its engines run. Raises BackendError as ``inspect``."""
    inspect(program)
    return count_cycles(program, find_march(program.march))


def _run_batch(
    program: HbmProgram, ready: Prepared, memories: Memories, inputs: Inputs, pieces: Mapping[str, list[Piece]]
) -> dict[str, IntArray]:
    about = program.description
    count = len(next(iter(inputs.values())))
    for port in about.inputs:
        memories.put(port, inputs[port.name])
    taps = {name: Tap(program.debug.tensors[found[0].tensor], count) for name, found in pieces.items()}
    due = _due(ready, pieces)
    for name, piece in due.get(_BEFORE, ()):
        taps[name].take(piece, memories.part(0, count), 0)
    for stage in ready.stages:
        for begin in range(0, count, stage.frames):
            frames = memories.part(begin, min(begin + stage.frames, count))
            for step in stage.steps:
                step.run(frames)
                for name, piece in due.get(step.index, ()):
                    taps[name].take(piece, frames, begin)
    results = {port.name: memories.get(port, count) for port in about.outputs}
    return results | {name: tap.value() for name, tap in taps.items()}


def _due(ready: Prepared, pieces: Mapping[str, list[Piece]]) -> dict[int, list[tuple[str, Piece]]]:
    """Pieces of tapped tensors by the last step that is done when they are there."""
    indices = [step.index for stage in ready.stages for step in stage.steps]
    due: dict[int, list[tuple[str, Piece]]] = {}
    for name, found in pieces.items():
        for piece in found:
            place = bisect.bisect_right(indices, piece.ready)
            due.setdefault(indices[place - 1] if place else _BEFORE, []).append((name, piece))
    return due


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
