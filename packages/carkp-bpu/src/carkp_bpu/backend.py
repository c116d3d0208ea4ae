"""The BPU behind core's ``NpuBackend``: each answer is one call into the room that knows it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from carkp_bpu.operator import BpuOperator, installed_operators
from carkp_core.backend import (
    CheckReport,
    Executor,
    QuantScheme,
)
from carkp_core.ir.operators import OPERATIONS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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

    def camera_input(self, image_rgb: npt.NDArray[np.uint8], march: str) -> npt.NDArray[np.int8]:
        """An RGB image through NV12 into centred YUV444; the same on every march."""
        from carkp_bpu.camera import camera_input

        return camera_input(image_rgb)


def _operators_of(graph: Graph) -> Sequence[BpuOperator]:
    """Plugins' operators, asked for only when a graph holds an operator that is not core's."""
    return _installed() if any(node.op.kind not in _CORE_KINDS for node in graph.nodes) else ()


@functools.cache
def _installed() -> tuple[BpuOperator, ...]:
    from carkp_core.plugins import plugin_manager

    return installed_operators(plugin_manager())
