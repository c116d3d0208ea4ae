"""A graph of layers: what the traced network is lowered to, and what the passes rewrite.

A ``torch.fx`` graph whose nodes are inputs, calls of layers, and the output. A node's ``meta`` holds ``shape`` (with
N = 2), ``source`` (module path, file, line), ``label`` (a name for people) and, once annotated, ``scheme``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import fx, nn

from carkp_core.ir.graph import Source
from carkp_core.quant.layer import Layer


class LayerGraph:
    """Layers and how tensors flow between them."""

    def __init__(self, batch: int) -> None:
        self.graph = fx.Graph()
        self.layers: dict[str, Layer] = {}
        #: Samples in the traced example: a first dimension of this size is the batch.
        self.batch = batch
        self._labels: set[str] = set()

    def __iter__(self) -> Iterator[fx.Node]:
        """The nodes that call layers, in execution order."""
        return iter([node for node in self.graph.nodes if node.op == "call_module"])

    @property
    def inputs(self) -> list[fx.Node]:
        """The network's inputs."""
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    def layer(self, node: Any) -> Layer | None:
        """The layer that a node calls, or None for inputs and the output."""
        return self.layers[str(node.target)] if isinstance(node, fx.Node) and node.op == "call_module" else None

    @staticmethod
    def sources(node: fx.Node) -> tuple[fx.Node, ...]:
        """The nodes that a node reads."""
        return tuple(arg for arg in node.args if isinstance(arg, fx.Node))

    def add(
        self, layer: Layer, inputs: Sequence[fx.Node], name: str, source: Source, shape: tuple[int, ...]
    ) -> fx.Node:
        """Append a layer (or insert it, inside ``graph.inserting_before``)."""
        label = self._unique(name)
        layer.label, layer.source = label, source
        node = self.graph.create_node("call_module", label, tuple(inputs), {}, label.replace(".", "_"))
        self.layers[label] = layer
        node.meta.update(shape=tuple(shape), source=source, label=label)
        return node

    def add_input(self, name: str, shape: tuple[int, ...]) -> fx.Node:
        """Append an input."""
        node = self.graph.placeholder(name)
        node.meta.update(shape=tuple(shape), source=Source(), label=name)
        self._labels.add(name)
        return node

    def only_user(self, node: fx.Node) -> fx.Node | None:
        """The node that alone reads another, or None."""
        return next(iter(node.users)) if len(node.users) == 1 else None

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Let every reader of ``old`` read ``new``, and drop ``old``."""
        old.replace_all_uses_with(new)
        self.erase(old)

    def erase(self, node: fx.Node) -> None:
        """Drop a node that nothing reads, and its layer."""
        self.graph.erase_node(node)
        self.layers.pop(str(node.target), None)

    def sweep(self) -> None:
        """Drop what the output does not need."""
        for node in reversed(list(self)):
            if not node.users:
                self.erase(node)

    def modules(self) -> nn.ModuleDict:
        """The layers as a module, keyed by node name."""
        return nn.ModuleDict({node.name: self.layers[str(node.target)] for node in self})

    def _unique(self, name: str) -> str:
        label, count = name, 1
        while label in self._labels:
            count += 1
            label = f"{name}_{count}"
        self._labels.add(label)
        return label
