"""Mean, sum and maximum along dimensions.

Before::  mean(x, (2, 3))        mean(x, 1)                          amax(x, 1)
After::   AvgPool(x), all of it  Conv2d(x), one filter of 1 / C      MaxPool(x as [N, 1, C, H W]), in steps of 64

Neighbouring dimensions reduce at once. A sum is a mean times a number, which costs no steps.
"""

from __future__ import annotations

import math

import torch
from torch import fx

from carkp_core.quant.operators import Call, OperatorDefinition, is_tensor
from carkp_core.quant.ops.channels import fixed
from carkp_core.quant.ops.move import Reshape
from carkp_core.quant.ops.pooling import AvgPool, MaxPool
from carkp_core.quant.ops.scaling import Scaled

#: No NPU that carkp knows of pools longer windows, but for those of the whole map.
WINDOW = 64


def reduced(call: Call, average: bool) -> fx.Node | None:
    """The mean or the maximum of ``call.args["input"]`` along ``call.args["dim"]``; None where samples are mixed."""
    x, dims = call.args["input"], call.args["dim"]
    if not is_tensor(x) or not call.batched(x) or dims is None:
        return None
    n, *shape = call.shape_of(x)
    axes = sorted(d % (len(shape) + 1) - 1 for d in (dims if isinstance(dims, (tuple, list)) else (dims,)))
    if not axes or axes[0] < 0 or axes != list(range(axes[0], axes[-1] + 1)):
        return None
    if len(shape) == 3 and axes == [1, 2]:
        y = call.emit(AvgPool(None) if average else _largest(None), x, shape=(n, shape[0], 1, 1))
    elif len(shape) == 3 and axes == [0] and average:
        y = call.emit(fixed(torch.full((1, shape[0], 1, 1), 1.0 / shape[0])), x, shape=(n, 1, *shape[1:]))
    else:
        before, behind = math.prod(shape[: axes[0]]), math.prod(shape[axes[-1] + 1 :])
        count = math.prod(shape[axes[0] : axes[-1] + 1])
        y = call.emit(Reshape((before, count, behind)), x, shape=(n, before, count, behind))
        y = _along_height(call, y, average)
    return y if call.args["keepdim"] and y.meta["shape"] == call.shape else call.emit(Reshape(call.shape[1:]), y)


def _along_height(call: Call, x: fx.Node, average: bool) -> fx.Node:
    """[N, before, count, behind] -> [N, before, 1, behind]. A maximum of maxima is exact, so long ones take steps."""
    n, before, count, behind = call.shape_of(x)
    if average:
        return call.emit(AvgPool((count, 1)), x, shape=(n, before, 1, behind))
    while count > 1:
        window = count if count <= WINDOW else _step(count)
        count = -(-count // window)
        x = call.emit(_largest((window, 1)), x, shape=(n, before, count, behind))
    return x


def _step(count: int) -> int:
    """The longest window that divides a count without rest, if there is one."""
    return next((step for step in range(WINDOW, 1, -1) if count % step == 0), WINDOW)


def _largest(kernel: tuple[int, int] | None) -> MaxPool:
    return MaxPool(kernel, kernel or (1, 1), (0, 0), (1, 1), kernel is not None)


def _lower_mean(call: Call) -> fx.Node | None:
    return reduced(call, average=True) if call.args["dtype"] is None else None


def _lower_sum(call: Call) -> fx.Node | None:
    x = call.args["input"]
    if call.args["dtype"] is not None:
        return None
    mean = reduced(call, average=True)
    if mean is None:
        return None
    return call.emit(Scaled(math.prod(call.shape_of(x)) / math.prod(call.shape)), mean)


def _lower_amax(call: Call) -> fx.Node | None:
    return reduced(call, average=False)


def _lower_max(call: Call) -> list[fx.Node | None] | None:
    """Values of a maximum along a dimension; its indices stay without integer form."""
    if not isinstance(call.args["dim"], int):
        return None
    values = reduced(call.with_shape(call.shape[0]), average=False)
    return None if values is None else [values, None]


MEAN = OperatorDefinition(
    "mean", _lower_mean, calls=("mean",), parameters=("input", "dim=None", "keepdim=False", "dtype=None")
)
SUM = OperatorDefinition(
    "sum", _lower_sum, calls=("sum",), parameters=("input", "dim=None", "keepdim=False", "dtype=None")
)
AMAX = OperatorDefinition("amax", _lower_amax, calls=("amax",), parameters=("input", "dim=None", "keepdim=False"))
MAX = OperatorDefinition("max", _lower_max, calls=("max",), parameters=("input", "dim=None", "keepdim=False"))
