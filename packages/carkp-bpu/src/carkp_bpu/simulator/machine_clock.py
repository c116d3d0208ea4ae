"""The machine's clock: when a program's last instruction ends, counted by letting the engines run.

The engines take turns in time: at each moment those that are idle start their next instruction if it has nothing left
to wait for. What an instruction costs is ``perf.cost``'s; ``perf.timeline`` finds starts in another way, and both must
agree. The rules are on the page of the BPU backend.
"""

from __future__ import annotations

import heapq

from carkp_bpu.hbm import counts, isa
from carkp_bpu.hbm.encoding import encode_instructions
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march.base import March
from carkp_bpu.perf.cost import dma_cycles
from carkp_bpu.perf.timeline import instruction_cycles
from carkp_core.errors import BackendError


def count_cycles(program: HbmProgram, march: March) -> int:
    """Cycles of one frame, from the fetch of the instructions to the end of the last one.

    Raises
    ------
    BackendError
        When the instructions wait for each other for ever.
    """
    engines = _Engines(program, march)
    now = engines.bus_free
    engines.start(now)
    while engines.running:
        now = engines.finish()
        engines.start(now)
    if any(queue for queue in engines.queues):
        heads = zip(isa.ENGINES, engines.queues, strict=True)
        waiting = [f"instruction {queue[-1]} on {name}" for name, queue in heads if queue]
        raise BackendError(
            "the program never ends: its instructions wait for each other",
            seen=", ".join(waiting),
            remedy="compile the model again",
        )
    return now


class _Engines:
    """What each engine has done, what runs, and since when the DDR is free."""

    def __init__(self, program: HbmProgram, march: March) -> None:
        self._instructions, self._march = program.instructions, march
        infos = program.debug.instructions
        self._layers = [info.layer for info in infos] if infos else [0] * len(program.instructions)
        #: Instructions still to start, the next one last.
        self.queues: list[list[int]] = [
            [index for index, one in reversed(list(enumerate(program.instructions))) if name == one.ENGINE]
            for name in isa.ENGINES
        ]
        self.done = [0] * len(isa.ENGINES)
        #: End and engine of what runs.
        self.running: list[tuple[int, int]] = []
        self._met: set[tuple[int, int]] = set()
        self.bus_free = dma_cycles(len(encode_instructions(program.instructions)), 1, march)

    def start(self, now: int) -> None:
        """Start what can start."""
        busy = {engine for _, engine in self.running}
        for engine, queue in enumerate(self.queues):
            if queue and engine not in busy:
                instruction = self._instructions[queue[-1]]
                if all(done >= count for done, count in zip(self.done, instruction.waits, strict=True)):
                    heapq.heappush(self.running, (self._end(queue.pop(), engine, now), engine))

    def finish(self) -> int:
        """Let time pass until something ends; the time then."""
        now = self.running[0][0]
        while self.running and self.running[0][0] == now:
            self.done[heapq.heappop(self.running)[1]] += 1
        return now

    def _end(self, index: int, engine: int, now: int) -> int:
        instruction, march = self._instructions[index], self._march
        cycles = instruction_cycles(instruction, march)
        if counts.ddr_bytes(instruction):
            self.bus_free = max(now + march.dma_cycles, self.bus_free) + cycles
            return self.bus_free
        first = (engine, self._layers[index]) not in self._met
        self._met.add((engine, self._layers[index]))
        return now + march.instruction_cycles + first * march.layer_cycles + cycles
