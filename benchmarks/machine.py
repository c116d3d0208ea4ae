"""Speed of the machine simulator, guards included, over the graph simulator's: one thread, one process, in turns."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.stopwatch import best_seconds
from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.hbm.program import parse_program
from carkp_bpu.march import find_march
from carkp_bpu.simulator.graph import simulate
from carkp_bpu.simulator.lowering.fused_conv import vector_kernels_run
from carkp_bpu.simulator.machine import inspect, run_program
from carkp_core.backend import CompileOptions
from carkp_core.session import open_session

CONFIG, MARCH, SIZE = "keypoint_efficientnetb0_carfusion", "bayes", 128
WANTED = 0.4
FRAMES = (32, 1)
SRAM_BYTES = (512 << 10, None)


def run() -> Iterator[str]:
    """A line for each size of on-chip memory and each number of frames; then what the first frame costs."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _lines()
    finally:
        torch.set_num_threads(threads)


def _lines() -> Iterator[str]:
    graph, march = open_session(CONFIG, march=MARCH).fast_graph(), find_march(MARCH)
    pixels = np.random.default_rng(0).integers(-128, 128, (max(FRAMES), 3, SIZE, SIZE), dtype=np.int8)
    for sram_bytes in SRAM_BYTES:
        options = CompileOptions(MARCH, "b0", "model.hbm", ".", "O2", sram_bytes)  # type: ignore[arg-type]
        data = compile_graph(graph, march, options).data
        program = parse_program(data)
        for vectors, frames in itertools.product(sorted({vector_kernels_run(), False}, reverse=True), FRAMES):
            inputs = {"img": pixels[:frames]}
            ways = {
                "graph": partial(simulate(graph, 1, vectors=vectors), inputs),
                "machine": partial(run_program, program, inputs, vectors=vectors),
            }
            first, second = (next(iter(way().values())) for way in ways.values())
            seconds = _turns(ways, 15 if frames > 1 else 100)
            ratio = statistics.median(g / m for g, m in zip(seconds["graph"], seconds["machine"], strict=True))
            yield (
                f"{program.description.sram_bytes >> 10} KiB on chip, {frames} frames, "
                f"{'vector kernels' if vectors else 'without vector kernels'}: {ratio:.2f} of the graph simulator's "
                f"speed ({WANTED} wanted); {1e3 * min(seconds['machine']) / frames:.2f} and "
                f"{1e3 * min(seconds['graph']) / frames:.2f} ms a frame, {np.count_nonzero(first != second)} differ"
            )
        fresh = best_seconds({"proof": partial(_prove, data)}, rounds=2)
        yield f"  parsing and proving {len(program.instructions)} instructions: {fresh['proof']:.2f} s, once a program"


def _prove(data: bytes) -> None:
    inspect(parse_program(data))


def _turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call; neighbours meet the same load, so their ratio is worth more than their times."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds
