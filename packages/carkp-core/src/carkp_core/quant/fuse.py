"""Fuse clamps and residual adds into the layers that feed them.

Before::  Conv2d -> Clamp(0, None)                 After::  Conv2d [0, inf)
          x ------------> Add -> Clamp                      x -> Conv2d(., residual) [0, inf)
          y -> Conv2d --^                                   y -^

* A clamp (ReLU, ReLU6, hardtanh) goes into a layer with a scale of its own that has no other reader.
* An add of two tensors of one shape takes at most one convolution: the one executed last, if the add is its only
  reader and nothing lies between. The other term stays a tensor. Transposed convolutions are not fused.

An activation behind an add clamps after the sum.
"""

from __future__ import annotations

from torch import fx

from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.layer import Bounds
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.elementwise import Add
from carkp_core.quant.ops.table import Clamp


def fuse(layers: LayerGraph) -> None:
    """Fuse adds, then clamps."""
    for node in layers:
        if isinstance(layers.layer(node), Add):
            _fuse_add(layers, node)
    for node in layers:
        if isinstance(layers.layer(node), Clamp):
            _fuse_clamp(layers, node)


def _fuse_clamp(layers: LayerGraph, node: fx.Node) -> None:
    (before,) = layers.sources(node)
    layer, clamp = layers.layer(before), layers.layer(node)
    assert clamp is not None
    if layer is None or not layer.takes_bounds or layers.only_user(before) is not node:
        return
    layer.bounds = layer.bounds.then(clamp.bounds)
    layers.replace(node, before)


def _fuse_add(layers: LayerGraph, node: fx.Node) -> None:
    add = layers.layer(node)
    assert isinstance(add, Add)
    a, b = layers.sources(node)
    if a is b or tuple(a.meta["shape"]) != tuple(b.meta["shape"]):
        return
    order = {other: index for index, other in enumerate(layers.graph.nodes)}
    sign_a, sign_b = add.negative
    for term, other, negative, sign in ((a, b, sign_a, sign_b), (b, a, sign_b, sign_a)):
        conv = layers.layer(term)
        last = order[term] > order[other]
        if not (isinstance(conv, Conv2d) and last and layers.only_user(term) is node):
            continue
        if negative or conv.residual or conv.bounds != Bounds():
            continue
        conv.residual = "-" if sign else "+"
        term.args = (*term.args, other)
        term.meta["shape"] = node.meta["shape"]
        layers.replace(node, term)
        return
