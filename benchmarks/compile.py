"""Compile time, and DDR bytes of a frame over the least that any program must move."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.stopwatch import best_seconds
from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.march import find_march
from carkp_core.backend import CompileOptions
from carkp_core.ir.graph import Graph
from carkp_core.session import open_session

CONFIG = "keypoint_efficientnetb0_carfusion"
MARCH = "bayes"
SRAM_BYTES = (512 << 10, None)
LEVELS = ("O0", "O1", "O2")


def run() -> Iterator[str]:
    """A line for each size of on-chip memory and each level."""
    graph = open_session(CONFIG, march=MARCH).fast_graph()
    for sram_bytes in SRAM_BYTES:
        for level in LEVELS:
            yield _line(graph, CompileOptions(MARCH, "b0", "model.hbm", ".", level, sram_bytes))  # type: ignore[arg-type]


def _line(graph: Graph, options: CompileOptions) -> str:
    programs = []
    march = find_march(options.march)
    seconds = best_seconds({"compile": lambda: programs.append(compile_graph(graph, march, options))}, rounds=1)
    stats, again = programs[-1].stats, programs[-1].data == programs[0].data
    bound = stats.bound
    parts = f"weights {bound.weight_bytes:,}, channels {bound.channel_bytes:,}, input {bound.input_bytes:,}"
    return (
        f"{options.opt}, {stats.sram_bytes >> 10} KiB on chip: {stats.ddr_bytes:,} DDR bytes, "
        f"{stats.ddr_bytes / stats.ddr_bytes_lower_bound:.3f} of the least ({parts}, output {bound.output_bytes:,}), "
        f"of these {stats.instruction_bytes:,} instructions; on-chip height "
        f"{1 + stats.allocation_overhead:.3f} of what lives at once; {seconds['compile']:.2f} s, "
        f"{'same' if again else 'OTHER'} bytes again"
    )
