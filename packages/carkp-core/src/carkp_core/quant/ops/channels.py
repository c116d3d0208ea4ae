"""Channels that are chosen, repeated or added, where moving is not enough: by a 1x1 convolution of ones and zeros.

Before::  index_select(x, 1, [2, 0, 1])     expand(x, C channels)      pad(x, 2 channels of zeros behind)
After::   Conv2d(x), one 1 in each filter   Conv2d(x), filters of 1    Concat(x, Clamp(Slice(x), 0, 0))

A weight of 1 is 127 steps, so such a convolution changes a value by no more than the output's rounding.

Legend: ``O`` chosen channels, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from carkp_core.quant.layer import Bounds
from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.ops.concat import Concat
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.move import Pad, Slice
from carkp_core.quant.ops.table import Clamp


def chosen_channels(call: Call, x: fx.Node, index: Sequence[int]) -> fx.Node:
    """The channels [O] of a 4-D tensor, any of them any number of times."""
    shape = call.shape_of(x)
    if list(index) == list(range(shape[1])):
        return x
    weight = torch.zeros(len(index), shape[1], 1, 1)
    weight[torch.arange(len(index)), torch.tensor(list(index))] = 1.0
    return call.emit(Conv2d(weight), x, shape=(shape[0], len(index), *shape[2:]))


def padded_channels(call: Call, x: fx.Node, front: int, back: int, value: float) -> fx.Node:
    """Channels of one value before and behind those of a 4-D tensor: some of its own, clamped to the value."""
    parts = [*_filled(call, x, front, value), x, *_filled(call, x, back, value)]
    if len(parts) == 1:
        return x
    n, channels, *size = call.shape_of(x)
    return call.emit(Concat(1), *parts, shape=(n, front + channels + back, *size))


def _filled(call: Call, x: fx.Node, count: int, value: float) -> list[fx.Node]:
    n, channels, *size = call.shape_of(x)
    made = []
    for start in range(0, count, channels):
        shape = (n, min(channels, count - start), *size)
        some = call.emit(Slice(1, 0, shape[1]), x, shape=shape)
        made.append(call.emit(Clamp(Bounds(value, value)), some, shape=shape))
    return made


def _lower_pad(call: Call) -> fx.Node | None:
    """Constant padding of width, height and channels, in torch's order: (left, right, top, bottom, front, back)."""
    x, pad, mode = call.args["input"], call.args["pad"], call.args["mode"]
    if not is_tensor(x) or mode != "constant" or len(call.shape_of(x)) != 4 or not call.batched(x):
        return None
    left, right, top, bottom, front, back = (*pad, *(0,) * 6)[:6]
    if any(pad[6:]) or min(pad) < 0:
        return None
    value = float(call.args["value"] or 0.0)
    x = padded_channels(call, x, front, back, value)
    if not any((left, right, top, bottom)):
        return x
    return call.emit(Pad((top, left, bottom, right), value), x)


def _lower_index_select(call: Call) -> fx.Node | None:
    x, index = call.args["input"], call.args["index"]
    if not is_tensor(x) or not isinstance(index, Tensor) or not call.batched(x):
        return None
    shape = call.shape_of(x)
    if len(shape) != 4 or call.args["dim"] % 4 != 1 or index.dtype not in (torch.int32, torch.int64):
        return None
    return chosen_channels(call, x, [int(i) % shape[1] for i in index.reshape(-1)])


PAD = OperatorDefinition(
    "pad", _lower_pad, calls=("pad",), parameters=("input", "pad", "mode='constant'", "value=None")
)
INDEX_SELECT = OperatorDefinition(
    "index_select", _lower_index_select, calls=("index_select",), parameters=("input", "dim", "index")
)
