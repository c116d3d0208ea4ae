"""Inference for test benches: load an integer model or an ``.hbm``, run numpy batches.

    model = load_model("int_infer-checkpoint-best.ir", threads=2)
    answers = model.dequantize(model({"img": images_int8}))  # by the names in model.outputs

An integer model runs on the graph simulator, an ``.hbm`` on the machine simulator; both give the same integers.
Legend: ``N`` images of a batch, any number; arrays are NCHW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_core.errors import GraphError
from carkp_core.ir import arithmetic, binary
from carkp_core.ir.graph import Graph
from carkp_core.ir.operators import OPERATIONS

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


@frozen
class Port:
    """An input or output: one image's shape (C, H, W), its integer type, and the value of one integer step."""

    shape: tuple[int, ...]
    dtype: str
    scale: float


@frozen(eq=False)
class Model:
    """A loaded model. Calls may come from any number of threads at once."""

    name: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    _execute: Callable[[Arrays], dict[str, Array]] = field(repr=False)

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        """Run a batch of integers, one array [N, C, H, W] of its declared type for each input.

        Raises
        ------
        CarkpError
            When an input is missing or has another type, layout or shape.
        """
        return self._execute(inputs)

    def quantize(self, values: Arrays) -> dict[str, Array]:
        """Real values of inputs as integers: divided by the scale, rounded half to even, clamped.

        Raises
        ------
        GraphError
            When a name is unknown or a value is not finite.
        """
        ports = {name: _port(self.inputs, name, "input") for name in _by_name(values, self.inputs)}
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise GraphError(f"input {name!r} has values that are not finite", seen="NaN or infinity")
        return {n: arithmetic.quantize(value, ports[n].scale, ports[n].dtype) for n, value in values.items()}

    def dequantize(self, values: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """Integers of outputs as float32 values."""
        by_name = _by_name(values, self.outputs)
        return {n: arithmetic.dequantize(v, _port(self.outputs, n, "output").scale) for n, v in by_name.items()}


def load_model(path: str | Path, threads: int | None = None) -> Model:
    """Load an integer model (``.ir``) or a compiled program (``.hbm``).

    Parameters
    ----------
    path:
        What ``carkp train --stage int_infer`` or ``carkp compile-perf`` wrote; told apart by its first bytes.
    threads:
        Threads that share a batch of an integer model; by default as many as torch uses. A program runs on the
        caller's own thread.

    Raises
    ------
    GraphError
        When an integer model is missing, damaged or cannot be simulated.
    BackendError
        When a program is damaged.
    ValueError
        When ``threads`` is below 1.
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    return _load_program(path) if _begins_as_program(path) else _load_graph(path, threads)


def _begins_as_program(path: Path) -> bool:
    from carkp_bpu.hbm.container import MAGIC

    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise GraphError("the model cannot be read", where=str(path), seen=error.strerror or str(error)) from error


def _load_graph(path: Path, threads: int | None) -> Model:
    from carkp_bpu.backend import BpuBackend

    graph = binary.read(path, (*OPERATIONS, *_plugins_operations()))
    execute = BpuBackend().simulate(graph, threads)
    return Model(graph.name, MappingProxyType(_graph_ports(graph, [i.name for i in graph.inputs])),
                 MappingProxyType(_graph_ports(graph, graph.outputs)), execute)  # fmt: skip


def _plugins_operations() -> Sequence[Any]:
    from carkp_core.plugins import plugin_manager
    from carkp_core.quant.lower import operations

    return operations(SimpleNamespace(plugins=plugin_manager()))


def _graph_ports(graph: Graph, names: Sequence[str]) -> dict[str, Port]:
    types = graph.types()
    return {name: Port(tuple(types[name].shape[1:]), types[name].dtype, types[name].scale) for name in names}


def _load_program(path: Path) -> Model:
    from carkp_bpu.hbm.program import load
    from carkp_bpu.simulator.machine import run_program

    program = load(path)
    inputs, outputs = (
        MappingProxyType({name: Port(tuple(shape[1:]), dtype, scale) for name, (shape, dtype, scale) in ports.items()})
        for ports in (program.inputs, program.outputs)
    )
    return Model(program.name, inputs, outputs, lambda values: run_program(program, values))


def _by_name(values: Any, ports: Mapping[str, Port]) -> Arrays:
    if not isinstance(values, Mapping):
        remedy = f"pass a dict of arrays by name: {{{next(iter(ports))!r}: x}}"
        raise GraphError("arrays are given by name", seen=type(values).__name__, remedy=remedy)
    return values


def _port(ports: Mapping[str, Port], name: str, what: str) -> Port:
    if name not in ports:
        raise GraphError(f"the model has no {what} {name!r}", allowed=", ".join(ports))
    return ports[name]
