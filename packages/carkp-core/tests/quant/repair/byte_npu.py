"""An NPU whose time is that of moving bytes: a performance model for tests to spend a budget with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from npu_toys import ToyBackend

from carkp_core.backend import Backend, CheckReport, CompileOptions, PerformanceReport, Violation
from carkp_core.context import Context
from carkp_core.ir.graph import Graph
from carkp_core.plugins import plugin_manager

BYTES_PER_MS = 10_000


class ByteBackend(ToyBackend):
    """An NPU whose time is that of moving every tensor's bytes, and whose transposed convolutions write int8 only."""

    def estimate(self, graph: Graph, options: CompileOptions) -> PerformanceReport:
        size = {"int8": 1, "int16": 2}
        moved = sum(int(np.prod(node.type.shape)) * size[node.type.dtype] for node in graph.nodes)
        return PerformanceReport(options.march, 1024, moved / BYTES_PER_MS, 1.0, moved, moved, 512)

    def check(self, graph: Graph, march: str) -> CheckReport:
        refused = [n for n in graph.nodes if n.op.kind == "conv_transpose2d" and n.type.dtype == "int16"]
        report = super().check(graph, march)
        violations = tuple(Violation("int8_only", n.name, "", "int16", "int8", "") for n in refused)
        return CheckReport(march, report.nodes, report.violations + violations)


def context(backends: tuple[Backend, ...] = (), march: str = "bytes") -> Context:
    plugins = plugin_manager(load_installed=False)
    options = CompileOptions(march, "net", Path("net.hbm"), Path())
    return Context(
        plugins, plugins.catalog(), backends, march, "net", Path(), compile_options=lambda: options
    )  # fmt: skip


def bytes_context() -> Context:
    return context((Backend("bytes", ("bytes",), "byte_npu:ByteBackend", "tests"),))
