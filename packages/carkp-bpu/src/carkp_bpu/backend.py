"""The BPU behind core's ``NpuBackend``: each answer is one call into the room that knows it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

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
        """The graph simulator: on the GPU if there is one and no number of threads is asked for, else on the CPU."""
        import torch

        from carkp_bpu.simulator.graph import simulate
        from carkp_bpu.simulator.torch_graph import TorchExecutor

        loaded = {operator.kind: operator.load_kernel() for operator in _operators_of(graph)}
        kernels = {kind: kernel for kind, kernel in loaded.items() if kernel}
        if threads is None and torch.cuda.is_available():
            return TorchExecutor(graph, "cuda", kernels=kernels)
        return simulate(graph, threads, kernels=kernels)

    def compile(self, graph: Graph, options: CompileOptions) -> CompileResult:
        """Check, compile, write the program and the reports.

        With findings no program is written; the reports are then those of the nodes that the march runs.
        """
        from carkp_bpu.hbm.program import write
        from carkp_bpu.perf import report

        check = self.check(graph, options.march)
        if not check.ok:
            part, only = _runnable_part(graph, check)
            performance = report.estimate_graph(part, options.march, sram_bytes=options.sram_bytes, only=only)
            reports = report.write_graph_reports(performance, part, options.out_dir, only)
            return CompileResult(check, performance, None, None, reports)
        program, machine_graph = self._compiled(graph, options)
        sha256 = write(program, options.hbm)
        performance = report.estimate(program, options.march, machine_graph, layer_details=options.layer_details)
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
            program, machine_graph = self._compiled(graph, options)
            return report.estimate(program, options.march, machine_graph)
        part, only = _runnable_part(graph, check)
        return report.estimate_graph(part, options.march, sram_bytes=options.sram_bytes, only=only)

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

    def _compiled(self, graph: Graph, options: CompileOptions) -> tuple[HbmProgram, Graph]:
        """The program, and the graph in the machine's own operators that it was made of."""
        from carkp_bpu.compiler.compile import compile_graph
        from carkp_bpu.expand import expand
        from carkp_bpu.march import find_march

        machine_graph = expand(graph, _operators_of(graph))
        program = compile_graph(machine_graph, find_march(options.march), options).program
        if machine_graph is not graph:
            description = attrs.evolve(program.description, graph_digest=graph.digest())
            program = attrs.evolve(program, description=description)
        return program, machine_graph


def _runnable_part(graph: Graph, check: CheckReport) -> tuple[Graph, frozenset[str]]:
    """A refused graph in the machine's operators where the march runs them, and the nodes that it runs."""
    from carkp_bpu.expand import expand

    runnable = frozenset(verdict.node for verdict in check.nodes if verdict.verdict == "NPU")
    part = expand(graph, _operators_of(graph), runnable)
    added = {node.name for node in part.nodes} - {node.name for node in graph.nodes}
    return part, runnable | added


def _operators_of(graph: Graph) -> Sequence[BpuOperator]:
    """Plugins' operators, asked for only when a graph holds an operator that is not core's."""
    return _installed() if any(node.op.kind not in _CORE_KINDS for node in graph.nodes) else ()


@functools.cache
def _installed() -> tuple[BpuOperator, ...]:
    from carkp_core.plugins import plugin_manager

    return installed_operators(plugin_manager())
