"""Let layers that were made from the same parameters train the same ones.

Before::  head (called on x) -> Conv2d(w1)        After::  Conv2d(w)
          head (called on y) -> Conv2d(w2)                 Conv2d(w)

A module that a network uses twice becomes two layers, each with an output scale of its own. Their weights, biases and
batch norms stay one, as they were, so QAT does not pull them apart. After folding, layers share only if they share the
batch norm too.
"""

from __future__ import annotations

import torch

from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.layer import Layer


def share(layers: LayerGraph) -> None:
    """Tie the parameters of layers with equal origins."""
    owners: dict[tuple[type[Layer], tuple[int, ...]], Layer] = {}
    for node in layers:
        layer = layers.layer(node)
        if layer is None or not layer.origin:
            continue
        owner = owners.setdefault((type(layer), layer.origin), layer)
        if owner is not layer and _equal(owner, layer):
            _tie(owner, layer)


def _equal(owner: Layer, layer: Layer) -> bool:
    mine, theirs = dict(layer.named_parameters()), dict(owner.named_parameters())
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _tie(owner: Layer, layer: Layer) -> None:
    for name in [name for name, _ in layer.named_parameters(recurse=False)]:
        setattr(layer, name, getattr(owner, name))
    for name, child in owner.named_children():
        setattr(layer, name, child)
