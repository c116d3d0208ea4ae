"""A sound program made ready to run: what no frame changes is worked out once.

Every byte that an instruction reads is either the same for all frames, because loads brought it from the constants, or
a frame's own (``machine_guards.Proof.uniform``). One walk in program order executes those loads on a memory of their
own, and each instruction takes copies of what it reads from there. What remains is a list of steps on frames' memories.

Any order of (step, frame) that keeps each frame's own order is the same run, so steps that touch little are done for
many frames at once and steps that touch much for few: a ``Stage`` is a run of steps with a like number of frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from attrs import field, frozen

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.footprint import Access
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.simulator.machine_convolution import Packed, Parameters, vector_calls
from carkp_bpu.simulator.machine_guards import Proof
from carkp_bpu.simulator.machine_kernels import KERNELS, Reads, kernel_parameters
from carkp_bpu.simulator.machine_memory import Frames
from carkp_bpu.simulator.machine_operands import Bytes, Operand, Target
from carkp_core.errors import BackendError

#: Bytes that a step's operands should fit in, all frames of it together.
_STAGE_BYTES = 384 << 10
_ALIGNMENT = 64


@frozen(eq=False)
class Step:
    """One instruction for some frames, and the bytes of a frame that it touches."""

    index: int
    run: Callable[[Frames], None]
    touched_bytes: int


@frozen(eq=False)
class Stage:
    """Steps that run together for ``frames`` frames."""

    steps: tuple[Step, ...]
    frames: int


@frozen(eq=False)
class Prepared:
    """What runs, in order, for batches of up to ``frames`` frames."""

    frames: int
    stages: tuple[Stage, ...] = field(repr=False)


def prepare(program: HbmProgram, proof: Proof, frames: int, vectors: bool) -> Prepared:
    """Make a program ready for batches of up to ``frames`` frames.

    ``vectors``: use the vector kernels where they can do an instruction.

    Raises
    ------
    BackendError
        When numbers of a rescale that lie in the constants are none; it names the instruction.
    """
    preparation = _Preparation(program, proof, frames, vectors)
    steps = [step for index in range(len(program.instructions)) for step in preparation.step(index)]
    return Prepared(frames, _stages(steps, frames))


def _stages(steps: Sequence[Step], frames: int) -> tuple[Stage, ...]:
    """Runs of steps whose own numbers of frames differ from the run's by a factor of two at most."""
    runs: list[tuple[list[Step], int]] = []
    for step in steps:
        wanted = frames
        while wanted > 1 and wanted * step.touched_bytes > _STAGE_BYTES:
            wanted //= 2
        if runs and runs[-1][1] <= 2 * wanted and wanted <= 2 * runs[-1][1]:
            runs[-1][0].append(step)
        else:
            runs.append(([step], wanted))
    return tuple(Stage(tuple(run), wanted) for run, wanted in runs)


class _Preparation:
    """The walk: constants as they stand in SRAM, and copies of them."""

    def __init__(self, program: HbmProgram, proof: Proof, frames: int, vectors: bool) -> None:
        self._program, self._proof, self._frames, self._vectors = program, proof, frames, vectors
        self._sram = np.zeros((1, program.description.sram_bytes + _ALIGNMENT), dtype=np.uint8)
        self._constants = np.frombuffer(program.constants, dtype=np.uint8)[None]
        self._copies: dict[bytes, Bytes] = {}
        self._packed = Packed()

    def step(self, index: int) -> list[Step]:
        """The step of an instruction; none for a load that all frames share."""
        instruction, touched = self._program.instructions[index], self._proof.accesses[index]
        uniform = self._proof.uniform[index]
        fixed = {
            access.role: self._copy(access)
            for access, same in zip(touched, uniform, strict=True)
            if same and access.space == "sram"
        }
        if isinstance(instruction, isa.Load) and uniform[0]:
            fixed = {"source": Operand(self._constants, touched[0])}
            KERNELS[isa.Load](instruction, fixed, Target(self._sram, touched[-1]))
            if index not in self._proof.spread:
                return []
        run = self._vector_run(index, instruction, touched, fixed) or _plain_run(instruction, touched, fixed)
        own = sum(math.prod(box.counts) for access in touched if access.role not in fixed for box in access.boxes)
        return [Step(index, run, own)]

    def _copy(self, access: Access) -> Operand:
        """What an operand reads from the constants, as it stands now."""
        if not access.boxes:
            return Operand(self._sram[:, :0], access)
        begin = min(box.address for box in access.boxes) // _ALIGNMENT * _ALIGNMENT
        end = max(box.end for box in access.boxes)
        raw = self._sram[0, begin : -(-end // _ALIGNMENT) * _ALIGNMENT].tobytes()
        kept = self._copies.setdefault(raw, np.frombuffer(raw, dtype=np.uint8)[None])
        return Operand(kept, access, begin)

    def _vector_run(
        self, index: int, instruction: isa.Instruction, touched: tuple[Access, ...], fixed: Reads
    ) -> Callable[[Frames], None] | None:
        if not isinstance(instruction, (isa.Conv, isa.Deconv)) or not {"weights", "params"} <= set(fixed):
            return None
        parameters = Parameters(*kernel_parameters(instruction, fixed))
        self._check_rescale(index, instruction, parameters)
        if not self._vectors or {"input", "residual"} & set(fixed) or _writes_what_it_reads(touched):
            return None
        calls = vector_calls(instruction, parameters, self._packed, self._frames)
        if calls is None:
            return None

        def run(frames: Frames) -> None:
            for call in calls:
                call.run(frames)

        return run

    def _check_rescale(self, index: int, instruction: isa.Conv | isa.Deconv, parameters: Parameters) -> None:
        # A term of an add keeps 15 bits more.
        least, most = (16, 77) if isinstance(instruction, isa.Conv) and instruction.residual is not None else (1, 62)
        shift, multiplier = parameters.shift, parameters.multiplier
        if shift.min() < least or shift.max() > most or multiplier.min() < 0:
            raise BackendError(
                "the constants hold no rescale where it looks for one",
                where=self._program.debug.place(index),
                seen=f"shifts {shift.min()}..{shift.max()}, multipliers from {multiplier.min()}",
                allowed=f"shifts {least}..{most}, multipliers from 0",
                remedy="compile the model again",
            )


def _plain_run(instruction: isa.Instruction, touched: tuple[Access, ...], fixed: Reads) -> Callable[[Frames], None]:
    kernel, own = KERNELS[type(instruction)], [a for a in touched if not a.write and a.role not in fixed]

    def run(frames: Frames) -> None:
        kernel(
            instruction,
            {**fixed, **{access.role: frames.operand(access) for access in own}},
            frames.target(touched[-1]),
        )

    return run


def _writes_what_it_reads(touched: tuple[Access, ...]) -> bool:
    """Whether the result may share bytes with an operand: every operand is to be read before anything is written."""
    written = touched[-1].boxes
    return any(
        read.address < box.end and box.address < read.end
        for access in touched[:-1]
        for read in access.boxes
        for box in written
    )
