"""Adaptive pooling: output o of n takes positions floor(o size / n) to ceil((o + 1) size / n), exclusive.

Where the windows are regular, one pool::      Where not, each direction in regular runs::

    adaptive(x 12x12, 6)  ->  AvgPool(2, 2)        adaptive(x 2x.., 7)  ->  Concat(row 0 three times,
    adaptive(x 13x13, 6)  ->  AvgPool(3, 2)                                        mean of rows 0 and 1,
    adaptive(x 2x2, 8)    ->  ResizeNearest                                        row 1 three times)
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen
from torch import fx

from carkp_core.quant.layer import Layer
from carkp_core.quant.operators import Call, OperatorDefinition
from carkp_core.quant.ops.concat import Concat
from carkp_core.quant.ops.move import Slice
from carkp_core.quant.ops.pooling import AvgPool, MaxPool, is_map
from carkp_core.quant.ops.resize import ResizeNearest, Size, is_even_enlargement

Hw = tuple[int, int]
Pool = Callable[[Hw, Hw], Layer]


@frozen
class Run:
    """Windows of one size and one distance: the first one's start, and how many."""

    start: int
    kernel: int
    stride: int = 0
    count: int = 1

    @property
    def stop(self) -> int:
        """Behind the last position."""
        return self.start + self.stride * (self.count - 1) + self.kernel

    def takes(self, start: int, kernel: int) -> bool:
        """Whether the next window goes on as the others do."""
        return kernel == self.kernel and (self.count == 1 or start == self.start + self.stride * self.count)


def runs(size: int, out: int) -> list[Run]:
    """The windows of one direction, in runs.

    >>> runs(13, 6)
    [Run(start=0, kernel=3, stride=2, count=6)]
    >>> [(run.kernel, run.count) for run in runs(2, 7)]
    [(1, 3), (2, 1), (1, 3)]
    """
    found: list[Run] = []
    for o in range(out):
        start, stop = o * size // out, -(-(o + 1) * size // out)
        last = found[-1] if found else None
        if last is not None and last.takes(start, stop - start):
            stride = start - last.start if last.count == 1 else last.stride
            found[-1] = evolve(last, stride=stride, count=last.count + 1)
        else:
            found.append(Run(start, stop - start))
    return found


def _adaptive(call: Call, whole: Layer, pool: Pool) -> fx.Node | None:
    x: fx.Node = call.args["input"]
    if not is_map(call, x):
        return None
    size, out = call.shape_of(x)[2:], tuple(call.shape[2:])
    if out == (1, 1):
        return call.emit(whole, x)
    rows, columns = (runs(s, o) for s, o in zip(size, out, strict=True))
    if len(rows) == len(columns) == 1 and rows[0].stride and columns[0].stride:
        (row,), (column,) = rows, columns
        return call.emit(pool((row.kernel, column.kernel), (row.stride, column.stride)), x)
    if is_even_enlargement(size, out):
        return call.emit(ResizeNearest(Size((out[0], out[1]), None)), x)
    return _direction(call, _direction(call, x, 2, rows, pool), 3, columns, pool)


def _direction(call: Call, x: fx.Node, axis: int, of: list[Run], pool: Pool) -> fx.Node:
    parts = [part for run in of for part in _parts(call, x, axis, run, pool)]
    if len(parts) == 1:
        return parts[0]
    return call.emit(Concat(axis), *parts, shape=_resized(call, x, axis, sum(run.count for run in of)))


def _parts(call: Call, x: fx.Node, axis: int, run: Run, pool: Pool) -> list[fx.Node]:
    """The results of a run: one tensor, or the same one as often as its only window is asked for."""
    if (run.start, run.stop) != (0, call.shape_of(x)[axis]):
        shape = _resized(call, x, axis, run.stop - run.start)
        x = call.emit(Slice(axis, run.start, run.stop), x, shape=shape)
    if run.kernel > 1:
        along = {axis: (run.kernel, max(run.stride, 1)), 5 - axis: (1, 1)}
        shape = _resized(call, x, axis, run.count if run.stride else 1)
        x = call.emit(pool((along[2][0], along[3][0]), (along[2][1], along[3][1])), x, shape=shape)
    return [x] if run.stride else [x] * run.count


def _resized(call: Call, x: fx.Node, axis: int, size: int) -> tuple[int, ...]:
    shape = call.shape_of(x)
    return (*shape[:axis], size, *shape[axis + 1 :])


def _max_pool(kernel: Hw | None, stride: Hw = (1, 1)) -> MaxPool:
    return MaxPool(kernel, stride, (0, 0), (1, 1), False)


def _lower_average(call: Call) -> fx.Node | None:
    return _adaptive(call, AvgPool(None), AvgPool)


def _lower_maximum(call: Call) -> fx.Node | None:
    return None if call.args["return_indices"] else _adaptive(call, _max_pool(None), _max_pool)


ADAPTIVE_AVG = OperatorDefinition(
    "adaptive_avg_pool2d", _lower_average, calls=("adaptive_avg_pool2d",), parameters=("input", "output_size")
)
ADAPTIVE_MAX = OperatorDefinition(
    "adaptive_max_pool2d",
    _lower_maximum,
    calls=("adaptive_max_pool2d",),
    parameters=("input", "output_size", "return_indices=False"),
)
