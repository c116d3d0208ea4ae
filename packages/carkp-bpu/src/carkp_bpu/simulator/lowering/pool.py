"""Pooling and resizing.

Legend: ``sizes`` is (N, H, W, Y, X, C), ``Y X`` the output size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from carkp_bpu.simulator.gemm import later
from carkp_bpu.simulator.kernels import pool, resize
from carkp_bpu.simulator.lowering.base import Array, Bind, Request, Run, Scratch
from carkp_core.ir import operators as ops

INT32_MAX = (1 << 31) - 1


def _sizes(x: Array, output: Array) -> tuple[int, ...]:
    return (*x.shape[:3], *output.shape[1:])


def lower_max_pool(request: Request) -> Bind | None:
    """A maximum of windows."""
    op: ops.MaxPool = request.op
    window = (*op.kernel_hw, *op.stride_hw, *op.dilation_hw, *op.padding_tlbr[:2])
    lowest = int(np.iinfo(request.inputs[0].dtype).min)

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        x = inputs[0]
        return [later(pool.max_pool, x.reshape(-1), _sizes(x, output), window, lowest, output.reshape(-1))]

    return bind


def lower_avg_pool(request: Request) -> Bind | None:
    """A mean of windows, rescaled by the number of positions that count."""
    op: ops.AvgPool = request.op
    window = (*op.kernel_hw, *op.stride_hw, 1, 1, *op.padding_tlbr[:2])
    count = _window_counts(op, request.inputs[0].shape[2:], request.output.shape[2:])
    multiplier, shift = op.multiplier[count].reshape(-1), op.shift[count].reshape(-1)
    rescale = (multiplier, np.left_shift(np.int64(1), shift - 1), shift)
    largest = op.kernel_hw[0] * op.kernel_hw[1] * -int(np.iinfo(request.inputs[0].dtype).min)
    acc_dtype = np.int32 if largest <= INT32_MAX else np.int64

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        x, acc = inputs[0], scratch.take((output.shape[3],), acc_dtype)
        arguments = (x.reshape(-1), _sizes(x, output), window, rescale, (op.lo, op.hi), acc, output.reshape(-1))
        return [later(pool.average_pool, *arguments)]

    return bind


def _window_counts(op: ops.AvgPool, size_hw: Sequence[int], out_hw: Sequence[int]) -> Array:
    """How many positions of each window count in its divisor, int64 [Y, X]."""
    counts = []
    for axis in (0, 1):
        before = op.padding_tlbr[axis]
        start = np.arange(out_hw[axis], dtype=np.int64) * op.stride_hw[axis]
        # In coordinates of the padded input, the counted positions are [first, last).
        first, last = (0, op.counted_hw[axis]) if op.count_include_pad else (before, before + size_hw[axis])
        stop = np.minimum(start + op.kernel_hw[axis], last)
        counts.append(np.maximum(stop - np.maximum(start, first), 0))
    return np.outer(counts[0], counts[1])


def lower_resize(request: Request) -> Bind | None:
    """Nearest or bilinear resizing with its sampling positions worked out now."""
    op: ops.Resize = request.op
    rows = _sample_positions(op, 0, request.inputs[0].shape[2])
    columns = _sample_positions(op, 1, request.inputs[0].shape[3])
    rescale = (op.multiplier, 1 << (op.shift - 1), op.shift)

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        x, target = inputs[0], output.reshape(-1)
        arguments: tuple[Any, ...] = (x.reshape(-1), _sizes(x, output), rows, columns)
        if op.mode == "nearest":
            return [later(resize.resize_nearest, *arguments, target)]
        return [later(resize.resize_bilinear, *arguments, op.numerator_hw, rescale, (op.lo, op.hi), target)]

    return bind


def _sample_positions(op: ops.Resize, axis: int, size: int) -> Array:
    """Where each output position samples: int64 [Y] for nearest, [3, Y] (this, next, next's weight) for bilinear."""
    numerator = op.numerator_hw[axis]
    position = np.arange(op.size_hw[axis], dtype=np.int64) * op.denominator_hw[axis] + op.offset_hw[axis]
    whole = np.floor_divide(position, numerator)
    rest = position - whole * numerator
    if op.mode == "nearest":
        return np.clip(whole + (2 * rest >= numerator), 0, size - 1)
    return np.stack([np.clip(whole, 0, size - 1), np.clip(whole + 1, 0, size - 1), rest])
