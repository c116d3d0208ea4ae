"""Padding of width, height and channels.

Before::  pad(x, border of one value)   pad(x, -1 on the left)   pad(x, 2 rows above, reflected)
After::   Pad(x)                        Slice(x)                 Concat(row 2, row 1, x)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from carkp_core.quant.operators import Call, OperatorDefinition, is_number
from carkp_core.quant.ops.channels import padded_channels
from carkp_core.quant.ops.concat import Concat
from carkp_core.quant.ops.move import Pad, Slice
from carkp_core.quant.ops.pooling import is_map


def _lower_pad(call: Call) -> fx.Node | None:
    """Torch's order of sides: (left, right, top, bottom, front, back); negative sides cut off."""
    x, pad, mode = call.args["input"], call.args["pad"], call.args["mode"]
    value = call.args["value"] or 0.0
    if not is_map(call, x) or any(pad[6:]) or not is_number(value):
        return None
    sides = (*pad, *(0,) * 6)[:6]
    if mode == "constant":
        return _constant(call, _cut(call, x, sides), [max(side, 0) for side in sides], float(value))
    if mode not in ("reflect", "replicate", "circular") or min(sides) < 0 or any(sides[4:]):
        return None
    for axis, (near, far) in ((2, sides[2:4]), (3, sides[:2])):
        x = _mirrored(call, x, axis, near, far, mode)
    return x


def _cut(call: Call, x: fx.Node, sides: Sequence[int]) -> fx.Node:
    for axis, (near, far) in ((3, sides[:2]), (2, sides[2:4]), (1, sides[4:])):
        size = call.shape_of(x)[axis]
        start, stop = max(-near, 0), size - max(-far, 0)
        if (start, stop) != (0, size):
            x = _slice(call, x, axis, start, stop)
    return x


def _constant(call: Call, x: fx.Node, sides: Sequence[int], value: float) -> fx.Node:
    left, right, top, bottom, front, back = sides
    x = padded_channels(call, x, front, back, value)
    return call.emit(Pad((top, left, bottom, right), value), x) if any((left, right, top, bottom)) else x


def _mirrored(call: Call, x: fx.Node, axis: int, near: int, far: int, mode: str) -> fx.Node:
    """Rows or columns of the tensor itself before and behind it."""
    if not (near or far):
        return x
    size = call.shape_of(x)[axis]
    if mode == "reflect":
        before = [_slice(call, x, axis, i, i + 1) for i in range(near, 0, -1)]
        behind = [_slice(call, x, axis, i, i + 1) for i in range(size - 2, size - 2 - far, -1)]
    elif mode == "circular":
        before = [_slice(call, x, axis, size - near, size)] if near else []
        behind = [_slice(call, x, axis, 0, far)] if far else []
    else:
        before = [_slice(call, x, axis, 0, 1)] * near if near else []
        behind = [_slice(call, x, axis, size - 1, size)] * far if far else []
    shape = _resized(call, x, axis, size + near + far)
    return call.emit(Concat(axis), *before, x, *behind, shape=shape)


def _slice(call: Call, x: fx.Node, axis: int, start: int, stop: int) -> fx.Node:
    return call.emit(Slice(axis, start, stop), x, shape=_resized(call, x, axis, stop - start))


def _resized(call: Call, x: fx.Node, axis: int, size: int) -> tuple[int, ...]:
    shape = call.shape_of(x)
    return (*shape[:axis], size, *shape[axis + 1 :])


PAD = OperatorDefinition(
    "pad", _lower_pad, calls=("pad",), parameters=("input", "pad", "mode='constant'", "value=None")
)
