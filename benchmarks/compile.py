"""Compile time, and DDR bytes of a frame over the least that any program must move, of five networks.

Every component of the least is printed: input and output, a byte a weight, and for each output channel 4 bytes of bias,
4 of multiplier and 1 of shift. Instruction fetch is counted in the traffic, not in the least. Then, where Vela can be
installed beside, its figures for the same networks and as much on-chip memory; and how high plans for allocation
problems with a known best plan are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from benchmarks import vela
from benchmarks.networks import NETWORKS
from benchmarks.stopwatch import best_seconds
from carkp_bpu.compiler.allocate import lowest, verify
from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.packings import perfect_packing
from carkp_bpu.march import find_march
from carkp_core.backend import CompileOptions
from carkp_core.ir.graph import Graph
from carkp_core.quant.fast import fast_graph
from carkp_core.session import open_session

CONFIG, OURS = "keypoint_efficientnetb0_carfusion", "EfficientNet-B0 keypoints"
MARCH = "bayes"
SRAM_BYTES = 512 << 10
LEVELS = ("O0", "O1", "O2")
#: What is wanted of this network at O2: traffic over the least, seconds, allocated height over live bytes less one.
WANTED = "wanted at O2: at most 1.10 of the least, 5 s, 0.5 % overhead"
PACKINGS = (50, 100, 200, 400)


def run() -> Iterator[str]:
    """Lines for each network, for Vela, and for allocation alone."""
    yield WANTED
    graphs = make_graphs()
    for name, graph in graphs.items():
        yield from _lines(name, graph)
    yield from vela.lines(graphs, SRAM_BYTES)
    for count in PACKINGS:
        yield _packing(count)


def make_graphs() -> dict[str, Graph]:
    """The networks as integer models, with random weights and calibration as of ``compile-perf --fast-perf``."""
    session = open_session(CONFIG, march=MARCH)
    graphs = {OURS: session.fast_graph()}
    for name, (make, side) in NETWORKS.items():
        torch.manual_seed(0)
        graphs[name] = fast_graph(make().eval(), {"img": torch.zeros(1, 3, side, side)}, session.context, name)
    return graphs


def _lines(name: str, graph: Graph) -> Iterator[str]:
    shown = False
    for level in LEVELS:
        options = CompileOptions(MARCH, name, "model.hbm", ".", level, SRAM_BYTES)  # type: ignore[arg-type]
        programs = []
        march = find_march(MARCH)
        seconds = best_seconds({"compile": lambda: programs.append(compile_graph(graph, march, options))}, rounds=1)  # noqa: B023
        stats, again = programs[-1].stats, programs[-1].data == programs[0].data
        if not shown:
            shown = True
            parts = ", ".join(f"{part} {size:,}" for part, size in stats.bound.components.items())
            yield f"{name}, {SRAM_BYTES >> 10} KiB on chip: the least is {stats.ddr_bytes_lower_bound:,} bytes: {parts}"
        yield (
            f"  {level}: {stats.ddr_bytes / stats.ddr_bytes_lower_bound:.3f} of the least: "
            f"loads {stats.loaded_bytes:,}, stores {stats.stored_bytes:,}, instructions {stats.instruction_bytes:,}; "
            f"{seconds['compile']:.2f} s; on chip {stats.sram_peak_bytes:,} of {stats.sram_live_bound_bytes:,} live, "
            f"overhead {stats.allocation_overhead:.2%}; {'same' if again else 'OTHER'} bytes again"
        )


def _packing(count: int) -> str:
    """Plans of perfect packings of one size."""
    overheads, started = [], time.perf_counter()
    for seed in range(4):
        buffers = perfect_packing(count, seed)
        plan = lowest(buffers, rounds=400)
        verify(buffers, plan, plan.height)
        overheads.append(plan.overhead)
    seconds = (time.perf_counter() - started) / len(overheads)
    shown = ", ".join(f"{overhead:.2%}" for overhead in overheads)
    return f"allocation, {count} buffers without slack, bound {plan.bound:,}: overheads {shown}; {seconds:.2f} s each"
