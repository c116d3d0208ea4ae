"""Drop moves that do nothing.

Before::  Reshape(C, 1, 1) <- Reshape(C) <- AvgPool        After::  AvgPool
          Clamp(0, 6) <- Clamp(0, None)                             Clamp(0, 6)
          Transpose(0, 3, 1, 2) <- Transpose(0, 2, 3, 1)            (nothing)
"""

from __future__ import annotations

from torch import fx

from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.ops.move import Pad, Reshape, Slice, Transpose
from carkp_core.quant.ops.table import Clamp


def simplify(layers: LayerGraph) -> None:
    """Merge neighbours and drop identities until nothing changes."""
    while _pass(layers):
        layers.sweep()


def _pass(layers: LayerGraph) -> bool:
    changed = False
    for node in layers:
        changed |= _merge(layers, node) or _drop(layers, node)
    return changed


def _merge(layers: LayerGraph, node: fx.Node) -> bool:
    """Let a move read what the move before it reads."""
    layer = layers.layer(node)
    if not layers.sources(node):
        return False
    before = layers.sources(node)[0]
    earlier = layers.layer(before)
    if isinstance(layer, Transpose) and isinstance(earlier, Transpose):
        layer.permutation = tuple(earlier.permutation[p] for p in layer.permutation)
    elif isinstance(layer, Clamp) and isinstance(earlier, Clamp):
        layer.bounds = earlier.bounds.then(layer.bounds)
    elif not (isinstance(layer, Reshape) and isinstance(earlier, Reshape)):
        return False
    node.args = before.args
    return True


def _drop(layers: LayerGraph, node: fx.Node) -> bool:
    """Take out a move whose result is its input."""
    layer = layers.layer(node)
    if not isinstance(layer, (Reshape, Transpose, Slice, Pad)):
        return False
    (before,) = layers.sources(node)
    same_shape = tuple(before.meta["shape"]) == tuple(node.meta["shape"])
    if not same_shape or (isinstance(layer, Transpose) and list(layer.permutation) != sorted(layer.permutation)):
        return False
    layers.replace(node, before)
    return True
