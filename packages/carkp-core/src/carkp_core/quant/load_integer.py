"""Reading back the integer model that ``train --stage int_infer`` wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from torch import nn

from carkp_core.backend import NpuBackend
from carkp_core.context import Context
from carkp_core.errors import BackendError, CheckpointError
from carkp_core.ir.binary import read
from carkp_core.ir.graph import Graph, Operation
from carkp_core.ir.operators import OPERATIONS
from carkp_core.quant.converters import replaced
from carkp_core.quant.integer_network import IntegerNetwork

log = logging.getLogger(__name__)


def read_integer_graph(context: Context) -> Graph:
    """The integer model of the context's checkpoint folder, with the operators that plugins add.

    Raises
    ------
    CheckpointError
        When there is none yet, or its file is damaged.
    """
    path = context.graph_path()
    if not path.exists():
        config = f" --config {context.config_path}" if context.config_path else ""
        raise CheckpointError(
            "there is no integer model yet",
            where=str(path),
            remedy=f"run `carkp train --stage int_infer{config}` first",
        )
    return read(path, operations=tuple(_operations(context)))


def _operations(context: Context) -> Iterable[type[Operation]]:
    yield from OPERATIONS
    for definition in context.operators().values():
        for one in definition if isinstance(definition, tuple) else (definition,):
            yield from getattr(one, "operations", ())


class LoadIntegerModel:
    """Converter: replace a model's deployable part by the integer model on disk, run by the march's simulator.

    Without any backend the reference executor runs it, slowly, and one line says so.
    """

    def __init__(self, *, context: Context) -> None:
        self._context = context

    def __call__(self, model: nn.Module) -> nn.Module:
        """Load."""
        graph = read_integer_graph(self._context)
        require_march(graph, self._context)
        return replaced(model, integer_network(graph, self._context.backend_or_none()))


def integer_network(graph: Graph, backend: NpuBackend | None) -> IntegerNetwork:
    """The integer model as a module, on a backend's simulator where there is a backend."""
    if backend is None:
        log.warning("no NPU backend is installed: int_infer runs on the slow reference executor")
        return IntegerNetwork(graph)
    return IntegerNetwork(graph, backend.simulate(graph))


def require_march(graph: Graph, context: Context) -> None:
    """Refuse an integer model of another march, naming both. Raises BackendError."""
    made_for = graph.metadata.get("march")
    if made_for is not None and made_for != context.march:
        raise BackendError(
            f"the integer model was converted for march {made_for!r}, not for {context.march!r}",
            where=str(context.graph_path()),
            remedy=f"use --march {made_for}, or run `train` from calibration on again with --march {context.march}",
        )
