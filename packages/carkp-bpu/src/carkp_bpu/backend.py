"""The BPU behind core's ``NpuBackend``: each answer is one call into the room that knows it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carkp_bpu.operator import BpuOperator, installed_operators
from carkp_core.backend import (
    Arrays,
    CheckReport,
    CompileOptions,
    CompileResult,
    Executor,
    PerformanceReport,
    Program,
    QuantScheme,
)
from carkp_core.errors import BackendError
from carkp_core.ir.operators import OPERATIONS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from carkp_bpu.hbm.program import HbmProgram
    from carkp_core.ir.graph import Graph

_CORE_KINDS = frozenset(operation.kind for operation in OPERATIONS)


class BpuBackend:
    """All marches of the BPU family."""

    def quant_scheme(self, node: Any, march: str) -> QuantScheme | None:
        """Core's default for every node: int8 activations and per-channel int8 weights, on every march."""
        return None

    def check(self, graph: Graph, march: str) -> CheckReport:
        """Judge every node by the march's rules and by those of plugins' operators."""
        from carkp_bpu.checker.report import check

        return check(graph, march, _operators_of(graph))

    def simulate(self, graph: Graph, threads: int | None = None) -> Executor:
        """The graph simulator."""
        from carkp_bpu.simulator.graph import simulate

        kernels = {operator.kind: operator.load_kernel() for operator in _operators_of(graph)}
        return simulate(graph, threads, kernels={kind: kernel for kind, kernel in kernels.items() if kernel})

    def compile(self, graph: Graph, options: CompileOptions) -> CompileResult:
        """Check, compile, write the program and the reports.

        With findings no program is written; the reports are then those of the nodes that the march runs.
        """
        from carkp_bpu.hbm.program import write
        from carkp_bpu.perf import report

        check = self.check(graph, options.march)
        if not check.ok:
            only = _runnable(check)
            performance = report.estimate_graph(graph, options.march, sram_bytes=options.sram_bytes, only=only)
            reports = report.write_graph_reports(performance, graph, options.out_dir, only)
            return CompileResult(check, performance, None, None, reports)
        program = self._compiled(graph, options)
        sha256 = write(program, options.hbm)
        performance = report.estimate(program, options.march, graph, layer_details=options.layer_details)
        reports = report.write_reports(performance, program, options.out_dir)
        return CompileResult(check, performance, options.hbm, sha256, reports)

    def options_digest(self, options: CompileOptions) -> str:
        """The digest of the options that change a program's bytes."""
        from carkp_bpu.compiler.options import options_digest
        from carkp_bpu.march import find_march

        return options_digest(options, find_march(options.march))

    def estimate(self, graph: Graph, options: CompileOptions) -> PerformanceReport:
        """The performance of the compiled graph, or of the part that the march runs; nothing is written."""
        from carkp_bpu.perf import report

        check = self.check(graph, options.march)
        if check.ok:
            return report.estimate(self._compiled(graph, options), options.march, graph)
        only = _runnable(check)
        return report.estimate_graph(graph, options.march, sram_bytes=options.sram_bytes, only=only)

    def load_program(self, path: Path) -> Program:
        """Read an ``.hbm``."""
        from carkp_bpu.hbm.program import load

        return load(path)

    def run_program(self, program: Program, inputs: Arrays, taps: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
        """Execute an ``.hbm`` on the machine simulator."""
        from carkp_bpu.hbm.program import HbmProgram
        from carkp_bpu.simulator.machine import run_program

        if not isinstance(program, HbmProgram):
            raise BackendError("not a program of the BPU", seen=type(program).__name__, allowed="an .hbm, loaded")
        return run_program(program, inputs, taps)

    def camera_input(self, image_rgb: npt.NDArray[np.uint8], march: str) -> npt.NDArray[np.int8]:
        """An RGB image through NV12 into centred YUV444; the same on every march."""
        from carkp_bpu.camera import camera_input

        return camera_input(image_rgb)

    def _compiled(self, graph: Graph, options: CompileOptions) -> HbmProgram:
        from carkp_bpu.compiler.compile import compile_graph
        from carkp_bpu.march import find_march

        return compile_graph(graph, find_march(options.march), options).program


def _runnable(check: CheckReport) -> frozenset[str]:
    """The nodes that the march runs."""
    return frozenset(verdict.node for verdict in check.nodes if verdict.verdict == "NPU")


def _operators_of(graph: Graph) -> Sequence[BpuOperator]:
    """Plugins' operators, asked for only when a graph holds an operator that is not core's."""
    return _installed() if any(node.op.kind not in _CORE_KINDS for node in graph.nodes) else ()


@functools.cache
def _installed() -> tuple[BpuOperator, ...]:
    from carkp_core.plugins import plugin_manager

    return installed_operators(plugin_manager())
