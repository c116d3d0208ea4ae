"""Fold batch norm into the convolution before it.

Before::  Conv2d(w, b) -> BatchNorm          After::  Conv2d(w', b')
          BatchNorm                                   Conv2d(depthwise, 1x1)

Where the convolution has no other reader and nothing fused. Any other batch norm is a depthwise 1x1 convolution.
In QAT's ``with_bn`` modes the batch norm moves into the layer instead and is folded at each evaluation.
"""

from __future__ import annotations

import torch
from torch import nn

from carkp_core.quant.graph import LayerGraph
from carkp_core.quant.ops.batch_norm import BatchNorm
from carkp_core.quant.ops.weighted import Weighted, fold


def fold_batch_norm(layers: LayerGraph, qat_mode: str = "fuse_bn") -> None:
    """Fold or replace every batch norm."""
    for node in layers:
        norm = layers.layer(node)
        if not isinstance(norm, BatchNorm):
            continue
        (before,) = layers.sources(node)
        weighted = layers.layer(before)
        if isinstance(weighted, Weighted) and weighted.bn is None and layers.only_user(before) is node:
            if qat_mode == "fuse_bn":
                _fold(weighted, norm)
            else:
                weighted.bn, weighted.reverse_fold = norm.bn, qat_mode == "with_bn_reverse_fold"
            weighted.origin = weighted.origin and (*weighted.origin, *norm.origin)
            layers.replace(node, before)
            continue
        with layers.graph.inserting_before(node):
            lone = layers.add(norm.as_convolution(), (before,), node.meta["label"], norm.source, node.meta["shape"])
        layers.replace(node, lone)


def _fold(weighted: Weighted, norm: BatchNorm) -> None:
    with torch.no_grad():
        weight, bias = fold(weighted, weighted.weight, weighted.bias, norm.bn)
    weighted.weight = nn.Parameter(weight.detach().clone())
    weighted.bias = nn.Parameter(bias.detach().clone())
    if norm.bn.weight is not None and norm.bn.bias is not None:
        weighted.normal = (norm.bn.bias.detach().clone(), norm.bn.weight.detach().abs())
