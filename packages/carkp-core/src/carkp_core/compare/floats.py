"""An integer model beside the float network: the error that each layer adds, and the one that it inherits.

For a layer with float output F, integer output Q (times its scale) in the model as it runs, and O, what the same
integer layer gives when its inputs are the float network's, quantized::

    Q - F  =  (O - F)  +  (Q - O)
    total     own         inherited

The own error holds the roundings of the layer's inputs, weights and output, and its clipping. The inherited one is what
earlier layers' errors become in this layer.

SQNR is 10 log10(sum F^2 / sum error^2) in dB; the cosine is that of F with O (own), Q with O (inherited), F with Q.

Legend: ``N`` images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_core.backend import Arrays, NpuBackend
from carkp_core.compare.integers import both
from carkp_core.compare.sides import Side, executor
from carkp_core.ir.arithmetic import dequantize, quantize
from carkp_core.ir.graph import Graph, GraphInput

Array = npt.NDArray[Any]

#: What the float inputs of a lone layer are named.
_FLOAT = "float:"


@frozen
class Error:
    """A signal-to-noise ratio in dB (infinite without an error) and the cosine of the two tensors."""

    sqnr_db: float
    cosine: float

    @property
    def relative(self) -> float:
        """The error's RMS over the signal's."""
        return 10.0 ** (-self.sqnr_db / 20.0)

    @property
    def decibels(self) -> str:
        """The ratio for people."""
        return "exact" if self.sqnr_db == math.inf else f"{self.sqnr_db:.1f}"


@frozen
class LayerError:
    """A layer's errors over all images. ``own`` and ``inherited`` are None where the side has no integer model."""

    name: str
    op: str
    source: str
    elements: int
    own: Error | None
    inherited: Error | None
    total: Error


@frozen
class FloatFindings:
    """Every common layer in execution order."""

    layers: tuple[LayerError, ...]

    @property
    def worst(self) -> LayerError | None:
        """The layer that adds the largest error, relative to its signal; None when no own errors are known."""
        known = [(layer.own.sqnr_db, index) for index, layer in enumerate(self.layers) if layer.own is not None]
        return self.layers[min(known)[1]] if known else None

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite ratio becomes null when it is written."""
        return {"layers": [attrs.asdict(layer) for layer in self.layers]}


class LoneLayers:
    """Runs each layer of an integer model on the float network's tensors, quantized.

    Parameters
    ----------
    graph:
        The integer model.
    held:
        Names of the float network's tensors; a layer that reads another one is left out.
    backend:
        The march's, or None for the reference executor.
    """

    def __init__(self, graph: Graph, held: Collection[str], backend: NpuBackend | None) -> None:
        self._types = {name: kind for name, kind in graph.types().items() if name in held}
        self._inputs = [declared.name for declared in graph.inputs if declared.name in held]
        self._graph = unchained(graph, held)
        self._execute = executor(self._graph, backend)

    def __call__(self, floats: Arrays) -> dict[str, Array]:
        """Integers of every layer and, just quantized, of the inputs."""
        steps = {name: quantize(floats[name], kind.scale, kind.dtype) for name, kind in self._types.items()}
        made = self._execute({i.name: steps[i.name.removeprefix(_FLOAT)] for i in self._graph.inputs})
        return {**{name: steps[name] for name in self._inputs}, **made}


@frozen(eq=False)
class FloatComparison:
    """Takes in batches and keeps the sums. ``lone`` is None where the side has no integer model."""

    reference: Side
    side: Side
    names: Sequence[str]
    lone: LoneLayers | None
    _sums: dict[str, _Sums] = field(factory=dict, init=False)

    def take(self, images: Sequence[str], floats: Arrays, integers: Arrays) -> None:
        """Compare the tensors of a batch."""
        own = self.lone(floats) if self.lone is not None else {}
        for name in self.names:
            wanted, got = both(name, floats, integers, len(images))
            scale = self.side.tensors[name].scale
            assert scale is not None
            present = dequantize(got, scale)
            alone = dequantize(both(name, own, integers, len(images))[0], scale) if name in own else None
            self._sums.setdefault(name, _Sums()).add(wanted, present, alone)

    def findings(self) -> FloatFindings:
        """What was found so far."""
        layers = []
        for name, sums in self._sums.items():
            kind = self.side.tensors[name]
            source = kind.source or self.reference.tensors[name].source
            layers.append(LayerError(name, kind.op, source, sums.elements, sums.own, sums.inherited, sums.total))
        return FloatFindings(tuple(layers))


def unchained(graph: Graph, held: Collection[str]) -> Graph:
    """The graph with every layer on its own: a node reads inputs of the graph named ``float:`` and its input's name.

    Constants stay chained to the nodes that read them. A node whose input is not among ``held`` is left out.
    """
    types, constants = graph.types(), {node.name for node in graph.nodes if not node.inputs}
    nodes = [node for node in graph.nodes if all(i in held or i in constants for i in node.inputs)]
    lone = [
        attrs.evolve(node, inputs=tuple(i if i in constants else _FLOAT + i for i in node.inputs)) for node in nodes
    ]
    read = dict.fromkeys(i for node in nodes for i in node.inputs if i not in constants)
    inputs = tuple(GraphInput(_FLOAT + name, types[name]) for name in read)
    return Graph(f"{graph.name}, layer by layer", inputs, tuple(lone), tuple(node.name for node in lone))


class _Sums:
    """Sums of squares and products over all elements, in float64."""

    def __init__(self) -> None:
        self.elements = 0
        self._signal = self._present = self._alone = 0.0
        self._total_noise = self._own_noise = self._inherited_noise = 0.0
        self._signal_present = self._signal_alone = self._present_alone = 0.0
        self._has_own = False

    def add(self, signal: Array, present: Array, alone: Array | None) -> None:
        """Take in a batch: F, Q and O as floats."""
        f, q = (value.astype(np.float64).ravel() for value in (signal, present))
        self.elements += f.size
        self._signal += float(f @ f)
        self._present += float(q @ q)
        self._signal_present += float(f @ q)
        self._total_noise += float((q - f) @ (q - f))
        if alone is not None:
            self._has_own = True
            o = alone.astype(np.float64).ravel()
            self._alone += float(o @ o)
            self._signal_alone += float(f @ o)
            self._present_alone += float(q @ o)
            self._own_noise += float((o - f) @ (o - f))
            self._inherited_noise += float((q - o) @ (q - o))

    @property
    def total(self) -> Error:
        return self._error(self._total_noise, self._signal_present, self._signal, self._present)

    @property
    def own(self) -> Error | None:
        return self._error(self._own_noise, self._signal_alone, self._signal, self._alone) if self._has_own else None

    @property
    def inherited(self) -> Error | None:
        if not self._has_own:
            return None
        return self._error(self._inherited_noise, self._present_alone, self._present, self._alone)

    def _error(self, noise: float, product: float, one: float, other: float) -> Error:
        if noise == 0.0:
            return Error(math.inf, 1.0)
        ratio = 10.0 * math.log10(self._signal / noise) if self._signal > 0.0 else -math.inf
        norm = math.sqrt(one * other)
        return Error(ratio, product / norm if norm > 0.0 else 0.0)
