"""The graph simulator on any device of torch, a GPU above all: the same graph, the same bits.

    executor = TorchExecutor(graph, "cuda")
    outputs = executor({"img": images_nchw_int8})

Everything is whole numbers in int64 (``torch_operators``) but the matrix products, whose routes are proven exact
(``torch_products``), so nothing depends on the device's float arithmetic.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from carkp_bpu.simulator.lowering import Kernel
from carkp_bpu.simulator.plan import make_plan
from carkp_bpu.simulator.torch_operators import Site, Step, make_step
from carkp_core.errors import BackendError, GraphError
from carkp_core.ir.graph import Graph, Node
from carkp_core.ir.inputs import check_inputs

Array = npt.NDArray[Any]

#: Images that go through the graph together.
SLICE_IMAGES = 64
DTYPES = {"int8": torch.int8, "int16": torch.int16, "int32": torch.int32}


class TorchExecutor:
    """An integer model on a device. Calls may come from any number of threads.

    Parameters
    ----------
    graph:
        The model.
    device:
        ``"cuda"``, ``"cuda:1"``, ``"cpu"``, ...
    int8_multiply:
        Use the device's int8 matrix multiply; by default when its self-test passes.
    kernels:
        As for ``simulate``.

    Raises
    ------
    GraphError
        When the graph is not well formed or holds an operator without integer form.
    BackendError
        When there is no such device.
    """

    def __init__(
        self,
        graph: Graph,
        device: str,
        int8_multiply: bool | None = None,
        kernels: Mapping[str, Kernel] | None = None,
    ) -> None:
        #: Tensors that no input reaches; making a plan also refuses what cannot be run.
        self._constants = frozenset(make_plan(graph).constants)
        self.graph = graph
        self.device = _usable(device)
        self._options: dict[str, Any] = {"int8_multiply": int8_multiply, "kernels": dict(kernels or {})}
        self._types = graph.types()
        self._steps: list[tuple[Node, Step]] = []
        for node in graph.nodes:
            site = Site(node, tuple(self._types[name] for name in node.inputs), self.device, int8_multiply)
            self._steps.append((node, make_step(site, (kernels or {}).get(node.op.kind))))

    def __reduce__(self) -> Any:
        """Copies and pickles are made anew."""
        return functools.partial(TorchExecutor, **self._options), (self.graph, str(self.device))

    def __call__(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Run a batch, as ``GraphExecutor`` does."""
        values, images = check_inputs(self.graph, inputs)
        wanted = tuple(dict.fromkeys((*self.graph.outputs, *taps)))
        unknown = [name for name in wanted if name not in self._types]
        if unknown:
            raise GraphError(
                f"graph {self.graph.name!r} has no tensor {unknown[0]!r}", remedy="name a node or an input"
            )
        if images == 0:
            values = {name: np.zeros((1, *value.shape[1:]), value.dtype) for name, value in values.items()}
        slices = [
            self._run({name: value[first : first + SLICE_IMAGES] for name, value in values.items()}, wanted)
            for first in range(0, max(images, 1), SLICE_IMAGES)
        ]
        return {name: self._joined(name, [part[name] for part in slices], images) for name in wanted}

    def _joined(self, name: str, parts: Sequence[Array], images: int) -> Array:
        if name in self._constants:
            return np.ascontiguousarray(parts[0])
        return np.ascontiguousarray(np.concatenate(parts)[:images])

    @torch.no_grad()
    def _run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        last_use = {name: number for number, (node, _) in enumerate(self._steps) for name in node.inputs}
        values = {name: torch.from_numpy(np.ascontiguousarray(v)).to(self.device) for name, v in inputs.items()}
        for number, (node, step) in enumerate(self._steps):
            values[node.name] = step([values[name] for name in node.inputs]).to(DTYPES[node.type.dtype])
            for name in {n for n in node.inputs if last_use[n] == number} - set(wanted):
                del values[name]
        return {name: values[name].cpu().numpy() for name in wanted}


def _usable(device: str) -> torch.device:
    try:
        # With its number: which GPU is the current one differs from thread to thread.
        return torch.empty(0, device=torch.device(device)).device
    except (RuntimeError, AssertionError) as error:
        raise BackendError("there is no such device", seen=device, allowed="cpu, or a GPU of this machine") from error
