"""The timeline of a program: when each of its instructions starts and ends.

The engines of ``hbm.isa`` run in parallel, each its own instructions in order, and wait as the instructions say. The
two DMA engines share the DDR: a transfer holds it for its bytes, first come, first served, while set-ups overlap.
The instruction stream is fetched before anything starts. Nothing is random and nothing is executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import frozen

from carkp_bpu.hbm import counts, isa
from carkp_bpu.hbm.encoding import encode_instructions
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march.base import March
from carkp_bpu.perf.cost import ConvWork, conv_cycles, dma_cycles, vector_cycles
from carkp_core.errors import BackendError

Queues: TypeAlias = dict[str, list[int]]

_DMA = (isa.Load, isa.Store)


@frozen
class Span:
    """One instruction on its engine, in cycles. For DMA, ``busy_start`` is when it gets the DDR."""

    index: int
    engine: str
    layer: int
    start: int
    busy_start: int
    end: int

    @property
    def cycles(self) -> int:
        """From the start, set-up included, to the end."""
        return self.end - self.start


@frozen
class Timeline:
    """All spans in program order, and the bytes of the instruction stream."""

    spans: tuple[Span, ...]
    fetch_bytes: int
    fetch_cycles: int

    @property
    def cycles(self) -> int:
        """When the last instruction ends."""
        return max((span.end for span in self.spans), default=self.fetch_cycles)


def instruction_cycles(instruction: isa.Instruction, march: March) -> int:
    """Cycles that an instruction keeps its engine (a transfer: the DDR) busy, without set-up."""
    if isinstance(instruction, _DMA):
        return dma_cycles(counts.ddr_bytes(instruction), counts.dma_runs(instruction), march)
    if isinstance(instruction, (isa.Conv, isa.Deconv)):
        return conv_cycles(conv_work(instruction), march)
    return vector_cycles(sum(_vector_bytes(instruction)), march)


def conv_work(instruction: isa.Conv | isa.Deconv) -> ConvWork:
    """The products of a tile. A transposed convolution does, for each output, those of its stride's phase."""
    (top, bottom), (left, right) = instruction.rows, instruction.columns
    kernel_area = instruction.kernel_hw[0] * instruction.kernel_hw[1]
    height, width = bottom - top, right - left
    if isinstance(instruction, isa.Deconv):
        height, width = -(-height // instruction.stride_hw[0]), -(-width // instruction.stride_hw[1])
    return ConvWork(
        height=height,
        width=width,
        kernel_area=kernel_area,
        depth=instruction.input.channels // instruction.groups,
        filters=instruction.output.channels // instruction.groups,
        groups=instruction.groups,
        element_bytes=instruction.input.dtype,
        feature_bytes=_input_bytes(instruction) + counts.output_elements(instruction) * instruction.output.dtype,
    )


def _input_bytes(instruction: isa.Conv | isa.Deconv) -> int:
    """Bytes of the input window of a tile, residual included; overlaps with other tiles count again."""
    if isinstance(instruction, isa.Deconv):
        spans = zip((instruction.rows, instruction.columns), instruction.stride_hw, strict=True)
        sizes = [-(-(end - begin) // stride) for (begin, end), stride in spans]
        return sizes[0] * sizes[1] * instruction.input.channels * instruction.input.dtype
    whole = (instruction.input.height, instruction.input.width)
    rows, columns = (
        min(size, (end - begin - 1) * stride + dilation * (kernel - 1) + 1)
        for size, (begin, end), stride, dilation, kernel in zip(
            whole,
            (instruction.rows, instruction.columns),
            instruction.stride_hw,
            instruction.dilation_hw,
            instruction.kernel_hw,
            strict=True,
        )
    )
    residual = 0
    if instruction.residual is not None:
        residual = counts.output_elements(instruction) * instruction.residual.map.dtype
    return rows * columns * instruction.input.channels * instruction.input.dtype + residual


def _vector_bytes(instruction: isa.Instruction) -> tuple[int, int]:
    """Bytes that an instruction of the vector engine takes in and gives."""
    elements = counts.output_elements(instruction)
    written = elements * (instruction.output.dtype if hasattr(instruction, "output") else 1)
    if isinstance(instruction, isa.Pool):
        rows = instruction.kernel_rows[1] - instruction.kernel_rows[0]
        return elements * rows * instruction.kernel_hw[1] * instruction.input.dtype, written
    if isinstance(instruction, isa.Resize):
        return elements * (4 if instruction.mode else 1) * instruction.input.dtype, written
    if isinstance(instruction, isa.Add):
        return elements * sum(term.view.dtype for term in instruction.terms), written
    if isinstance(instruction, isa.Mul):
        return 2 * elements * instruction.output.dtype, written
    return (0 if isinstance(instruction, isa.Fill) else written), written


def timeline(program: HbmProgram, march: March) -> Timeline:
    """Schedule a program's instructions.

    Raises
    ------
    BackendError
        When the instructions wait for each other for ever.
    """
    infos = program.debug.instructions
    layers = [info.layer for info in infos] if infos else [0] * len(program.instructions)
    fetch_bytes = len(encode_instructions(program.instructions))
    fetch_cycles = dma_cycles(fetch_bytes, 1, march)
    scheduler = _Scheduler(program.instructions, layers, march, fetch_cycles)
    return Timeline(tuple(scheduler.run()), fetch_bytes, fetch_cycles)


class _Scheduler:
    """Event by event: of the instructions at the heads of the engines' queues, the one that can start first starts.

    That order is exact: an instruction that still waits for another can't start before it.
    """

    def __init__(
        self, instructions: Sequence[isa.Instruction], layers: Sequence[int], march: March, fetch_cycles: int
    ) -> None:
        self.instructions, self.layers, self.march = instructions, layers, march
        self.queues: Queues = {engine: [] for engine in isa.ENGINES}
        for index, instruction in enumerate(instructions):
            self.queues[instruction.ENGINE].append(index)
        self.ends: Queues = {engine: [] for engine in isa.ENGINES}
        self.bus_free = self.origin = fetch_cycles
        self.begun: set[tuple[str, int]] = set()
        self.durations = [instruction_cycles(instruction, march) for instruction in instructions]

    def run(self) -> list[Span]:
        spans: list[Span | None] = [None] * len(self.instructions)
        for _ in self.instructions:
            ready, engine = min(((self._ready(engine), place) for place, engine in enumerate(isa.ENGINES)))
            if ready == _NEVER:
                raise self._deadlock()
            span = self._begin(isa.ENGINES[engine], ready)
            spans[span.index] = span
        return [span for span in spans if span is not None]

    def _ready(self, engine: str) -> float:
        """When the head of an engine's queue can start; never, as long as it waits for what isn't scheduled."""
        done = self.ends[engine]
        if len(done) == len(self.queues[engine]):
            return _NEVER
        ready: float = done[-1] if done else self.origin
        waits = self.instructions[self.queues[engine][len(done)]].waits
        for other, count in zip(isa.ENGINES, waits, strict=True):
            if count > len(self.ends[other]):
                return _NEVER
            if count:
                ready = max(ready, self.ends[other][count - 1])
        return ready

    def _begin(self, engine: str, ready: float) -> Span:
        index, start = self.queues[engine][len(self.ends[engine])], int(ready)
        busy_start = start + self._overhead(engine, self.layers[index])
        if isinstance(self.instructions[index], _DMA):
            busy_start = max(busy_start, self.bus_free)
        end = busy_start + self.durations[index]
        if isinstance(self.instructions[index], _DMA):
            self.bus_free = end
        self.ends[engine].append(end)
        return Span(index, engine, self.layers[index], start, busy_start, end)

    def _overhead(self, engine: str, layer: int) -> int:
        """Set-up of an instruction, and of a layer when its engine meets it for the first time."""
        if engine.startswith("dma"):
            return self.march.dma_cycles
        first = (engine, layer) not in self.begun
        self.begun.add((engine, layer))
        return self.march.instruction_cycles + first * self.march.layer_cycles

    def _deadlock(self) -> BackendError:
        heads = [(engine, self.queues[engine][len(self.ends[engine]) :][:1]) for engine in isa.ENGINES]
        waiting = ", ".join(f"instruction {head[0]} on {engine}" for engine, head in heads if head)
        return BackendError(
            "the program never ends: its instructions wait for each other",
            seen=waiting,
            remedy="compile the model again",
        )


_NEVER = float("inf")
