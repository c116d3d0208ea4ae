"""The integer model as a module: float image -> integers -> executor -> floats, nested as in the float network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from carkp_core.backend import Executor
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import dequantize, quantize
from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import STRUCTURE_KEY


class ReferenceExecutor:
    """``ir.reference`` behind the interface of backends' executors."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, inputs: Any, taps: Sequence[str] = ()) -> dict[str, Any]:
        return reference.execute(self._graph, inputs, taps)


class IntegerNetwork(nn.Module):
    """An integer model in a float network's place.

    Parameters
    ----------
    graph:
        The integer model.
    executor:
        A backend's simulator; None for the reference executor.
    """

    #: Of ``train.evaluation``: batches may be in it at the same time, and are computed by the executor's threads.
    reentrant = True
    own_threads = True

    def __init__(self, graph: Graph, executor: Executor | None = None) -> None:
        super().__init__()
        self.graph = graph
        self._executor: Executor = ReferenceExecutor(graph) if executor is None else executor
        text = graph.metadata.get(STRUCTURE_KEY)
        names = list(graph.outputs)
        default = names[0] if len(names) == 1 else {"tuple": names}
        self._structure = default if text is None else json.loads(text)

    def forward(self, *images: Tensor) -> Any:
        """Floats in, floats out: ``float32(q) * float32(scale)`` of the integer outputs."""
        device = images[0].device
        results = self.integers(*images)
        types = self.graph.types()
        floats = {
            name: torch.from_numpy(dequantize(value, types[name].scale)).to(device) for name, value in results.items()
        }
        return _nested(self._structure, floats)

    def integers(self, *images: Tensor, taps: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The integer outputs (and tapped tensors) for float images."""
        inputs = {
            declared.name: _quantized(image.detach().cpu().numpy(), declared.type.scale, declared.type.dtype)
            for declared, image in zip(self.graph.inputs, images, strict=True)
        }
        return self.execute(inputs, taps)

    def execute(self, inputs: Any, taps: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The integer outputs (and tapped tensors) for integer inputs [N, ...] by name."""
        return self._executor(inputs, taps)


def _quantized(images: np.ndarray, scale: float, dtype: str) -> np.ndarray:
    """``quantize`` image by image: its float64 steps stay in the cache, which is several times faster."""
    integers = np.empty_like(images, dtype=dtype)
    for image, target in zip(images, integers, strict=True):
        target[...] = quantize(image, scale, dtype)
    return integers


def _nested(structure: Any, values: dict[str, Tensor]) -> Any:
    if isinstance(structure, str):
        return values[structure]
    if structure is None:
        return None
    ((kind, items),) = structure.items()
    if kind == "dict":
        return {key: _nested(item, values) for key, item in items.items()}
    made = [_nested(item, values) for item in items]
    return made if kind == "list" else tuple(made)
