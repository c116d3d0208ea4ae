"""Channels that are chosen, repeated or added, where moving is not enough: by a 1x1 convolution of ones and zeros.

Before::  index_select(x, 1, [2, 0, 1])     expand(x, C channels)      pad(x, 2 channels of zeros behind)
After::   Conv2d(x), one 1 in each filter   Conv2d(x), filters of 1    Concat(x, Clamp(Slice(x), 0, 0))

A weight of 1 is 127 steps, so such a convolution changes a value by no more than the output's rounding.

Legend: ``O`` chosen channels, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.ops.concat import Concat, filled
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.move import Reshape


def chosen_channels(call: Call, x: fx.Node, index: Sequence[int]) -> fx.Node:
    """The channels [O] of a 4-D tensor, any of them any number of times."""
    shape = call.shape_of(x)
    if list(index) == list(range(shape[1])):
        return x
    weight = torch.zeros(len(index), shape[1], 1, 1)
    weight[torch.arange(len(index)), torch.tensor(list(index))] = 1.0
    return call.emit(fixed(weight), x, shape=(shape[0], len(index), *shape[2:]))


def fixed(weight: Tensor) -> Conv2d:
    """A convolution whose weights no training changes."""
    conv = Conv2d(weight)
    conv.weight.requires_grad_(False)
    return conv


def padded_channels(call: Call, x: fx.Node, front: int, back: int, value: float) -> fx.Node:
    """Channels of one value before and behind those of a 4-D tensor: some of its own, clamped to the value."""
    parts = [*filled(call, x, 1, front, value), x, *filled(call, x, 1, back, value)]
    if len(parts) == 1:
        return x
    n, channels, *size = call.shape_of(x)
    return call.emit(Concat(1), *parts, shape=(n, front + channels + back, *size))


def _lower_index_select(call: Call) -> fx.Node | None:
    return _chosen(call, call.args["dim"], call.args["index"])


def _lower_indexed(call: Call) -> fx.Node | None:
    """``x[:, index]`` with a list or a tensor of whole numbers, behind it only whole dimensions."""
    index, x = call.args["index"], call.args["input"]
    if not isinstance(index, tuple) or not is_tensor(x):
        return None
    items = _spelt_out(index, len(call.shape_of(x)))
    if len(items) < 2 or any(not _whole(item) for item in (items[0], *items[2:])):
        return None
    return _chosen(call, 1, items[1]) if isinstance(items[1], (list, Tensor)) else None


def _spelt_out(index: tuple[Any, ...], rank: int) -> list[Any]:
    """The index with an ellipsis replaced by the whole dimensions that it stands for."""
    items: list[Any] = []
    for item in index:
        items += [slice(None)] * (rank - len(index) + 1) if item is Ellipsis else [item]
    return items


def _whole(item: Any) -> bool:
    return isinstance(item, slice) and item == slice(None)


def _chosen(call: Call, dim: int, index: Any) -> fx.Node | None:
    """Chosen channels of a map [N, C, H, W] or a vector [N, C]."""
    x = call.args["input"]
    if not is_tensor(x) or is_tensor(index) or not call.batched(x):
        return None
    index, shape = torch.as_tensor(index), call.shape_of(x)
    if len(shape) not in (2, 4) or dim % len(shape) != 1 or index.dtype not in (torch.int32, torch.int64):
        return None
    if index.ndim > 1:
        return None
    chosen = [int(i) % shape[1] for i in index.reshape(-1)]
    if len(shape) == 4:
        return chosen_channels(call, x, chosen)
    y = call.emit(Reshape((shape[1], 1, 1)), x, shape=(*shape, 1, 1))
    return call.emit(Reshape((len(chosen),)), chosen_channels(call, y, chosen))


INDEX_SELECT = OperatorDefinition(
    "index_select", _lower_index_select, calls=("index_select",), parameters=("input", "dim", "index")
)
INDEXED = OperatorDefinition("indexed", _lower_indexed, calls=("getitem",), parameters=("input", "index"))
