"""Permutations of dimensions: permute, transpose, shuffles of channels and pixels.

Before::  permute(x [N, A, B, C, D, E], (0, 2, 4, 1, 3, 5))
After::   transposes of at most five dimensions between reshapes, each an exchange of two neighbouring blocks
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import fx

from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.ops.move import Reshape, Transpose


def _lower_permute(call: Call) -> fx.Node | None:
    x, dims = call.args["input"], call.args["dims"]
    if len(dims) == 1 and isinstance(dims[0], (tuple, list)):
        dims = tuple(dims[0])
    return _transpose(call, x, dims)


def _lower_transpose(call: Call) -> fx.Node | None:
    x = call.args["input"]
    if not is_tensor(x):
        return None
    order = list(range(len(call.shape_of(x))))
    a, b = call.args["dim0"], call.args["dim1"]
    order[a], order[b] = order[b], order[a]
    return _transpose(call, x, order)


def _transpose(call: Call, x: Any, dims: Sequence[int]) -> fx.Node | None:
    if not is_tensor(x) or not call.batched(x):
        return None
    order = tuple(d % len(call.shape_of(x)) for d in dims)
    return permuted(call, x, order) if order[0] == 0 else None


def permuted(call: Call, x: fx.Node, order: Sequence[int]) -> fx.Node:
    """A permutation, the batch first; beyond five dimensions in a form that NPUs take.

    Dimensions that stay neighbours move as one. What is still too much goes in steps that exchange two neighbouring
    blocks: [N, before, block, block, behind].
    """
    shape = call.shape_of(x)
    result = [shape[d] for d in order]
    if len(shape) <= 5:
        return call.emit(Transpose(order), x, shape=result)
    groups = _neighbours(order[1:])
    sizes = {group[0]: math.prod(shape[d] for d in group) for group in groups}
    now, wanted = sorted(sizes), [group[0] for group in groups]
    if len(now) < 5:
        x = _reshaped(call, x, [sizes[d] for d in now])
        places = (0, *(now.index(d) + 1 for d in wanted))
        x = call.emit(Transpose(places), x, shape=(shape[0], *(sizes[d] for d in wanted)))
        return _reshaped(call, x, result[1:])
    for i, first in enumerate(wanted):
        j = now.index(first)
        if j == i:
            continue
        end = j + 1
        while end < len(now) and wanted[i + end - j] == now[end]:
            end += 1
        blocks = [math.prod(sizes[d] for d in part) for part in (now[:i], now[i:j], now[j:end], now[end:])]
        before, block, moved, behind = blocks
        x = _reshaped(call, x, blocks)
        x = call.emit(Transpose((0, 1, 3, 2, 4)), x, shape=(shape[0], before, moved, block, behind))
        now[i:end] = now[j:end] + now[i:j]
    return _reshaped(call, x, result[1:])


def _neighbours(order: Sequence[int]) -> list[list[int]]:
    """Runs of dimensions that follow each other before and after.

    >>> _neighbours([3, 5, 1, 2, 4])
    [[3], [5], [1, 2], [4]]
    """
    groups: list[list[int]] = []
    for d in order:
        if groups and groups[-1][-1] == d - 1:
            groups[-1].append(d)
        else:
            groups.append([d])
    return groups


def _reshaped(call: Call, x: fx.Node, sizes: Sequence[int]) -> fx.Node:
    return call.emit(Reshape(sizes), x, shape=(call.layers.batch, *sizes))


def _lower_pixel_shuffle(call: Call) -> fx.Node | None:
    """[N, C r r, H, W] -> [N, C, H r, W r]."""
    x, factor = call.args["input"], call.args["upscale_factor"]
    if not is_tensor(x) or len(call.shape_of(x)) != 4:
        return None
    n, channels, height, width = call.shape_of(x)
    out = channels // factor**2
    x = call.emit(Reshape((out, factor, factor, height, width)), x, shape=(n, out, factor, factor, height, width))
    x = permuted(call, x, (0, 1, 4, 2, 5, 3))
    return call.emit(Reshape(call.shape[1:]), x)


def _lower_pixel_unshuffle(call: Call) -> fx.Node | None:
    """[N, C, H r, W r] -> [N, C r r, H, W]."""
    x, factor = call.args["input"], call.args["downscale_factor"]
    if not is_tensor(x) or len(call.shape_of(x)) != 4:
        return None
    n, channels, tall, wide = call.shape_of(x)
    height, width = tall // factor, wide // factor
    split = (channels, height, factor, width, factor)
    x = call.emit(Reshape(split), x, shape=(n, *split))
    x = permuted(call, x, (0, 1, 3, 5, 2, 4))
    return call.emit(Reshape(call.shape[1:]), x)


def _lower_channel_shuffle(call: Call) -> fx.Node | None:
    x, groups = call.args["input"], call.args["groups"]
    if not is_tensor(x) or len(call.shape_of(x)) != 4:
        return None
    n, channels, height, width = call.shape_of(x)
    split = (groups, channels // groups, height, width)
    x = call.emit(Reshape(split), x, shape=(n, *split))
    x = call.emit(Transpose((0, 2, 1, 3, 4)), x, shape=(n, channels // groups, groups, height, width))
    return call.emit(Reshape(call.shape[1:]), x)


PERMUTE = OperatorDefinition("permute", _lower_permute, calls=("permute",), parameters=("input", "*dims"))
TRANSPOSE = OperatorDefinition(
    "transpose", _lower_transpose, calls=("transpose", "swapaxes", "swapdims"), parameters=("input", "dim0", "dim1")
)
PIXEL_SHUFFLE = OperatorDefinition(
    "pixel_shuffle", _lower_pixel_shuffle, calls=("pixel_shuffle",), parameters=("input", "upscale_factor")
)
PIXEL_UNSHUFFLE = OperatorDefinition(
    "pixel_unshuffle", _lower_pixel_unshuffle, calls=("pixel_unshuffle",), parameters=("input", "downscale_factor")
)
CHANNEL_SHUFFLE = OperatorDefinition(
    "channel_shuffle",
    _lower_channel_shuffle,
    calls=("channel_shuffle", "native_channel_shuffle"),
    parameters=("input", "groups"),
)
