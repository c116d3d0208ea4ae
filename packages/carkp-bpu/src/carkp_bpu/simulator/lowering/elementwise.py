"""Add, mul, rescale, clamp, tables: element by element, in the stored order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from carkp_bpu.simulator.gemm import later
from carkp_bpu.simulator.kernels import elementwise as kernels
from carkp_bpu.simulator.lowering.base import Array, Bind, Request, Run, Scratch, logical, stored
from carkp_bpu.simulator.lowering.conv import term_numbers
from carkp_core.ir import operators as ops
from carkp_core.ir.arithmetic import INT_RANGE, rounding_half

#: Elements of a longer sum handled at a time.
SUM_CHUNK = 16 * 1024


def _spread(value: Array, output: Array, scratch: Scratch) -> tuple[Array, list[Run]]:
    """``value`` flat in the output's shape: itself, or a copy that a call makes."""
    if value.shape == output.shape:
        return value.reshape(-1), []
    room = scratch.take(output.shape, value.dtype)
    # Broadcasting follows the IR's order of dimensions, also between tensors of different rank.
    view = stored(np.broadcast_to(logical(value), logical(output).shape))
    return room.reshape(-1), [later(np.copyto, room, view)]


def lower_add(request: Request) -> Bind | None:
    """A sum of two or more terms."""
    op: ops.Add = request.op
    terms = [term_numbers(term) for term in op.terms]

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        values, calls = [], []
        for value in inputs:
            flat, copies = _spread(value, output, scratch)
            values.append(flat)
            calls += copies
        target = output.reshape(-1)
        if len(terms) == 2:
            arguments = (values[0], terms[0], values[1], terms[1], op.lo, op.hi, target)
            return [*calls, later(kernels.add_two, *arguments)]
        total = scratch.take((min(SUM_CHUNK, target.size),), np.int64)
        for first in range(0, target.size, SUM_CHUNK):
            part = slice(first, min(first + SUM_CHUNK, target.size))
            sums = total[: part.stop - first]
            calls.append(later(kernels.begin_sum, values[0][part], terms[0], sums))
            for value, term in zip(values[1:], terms[1:], strict=True):
                calls.append(later(kernels.continue_sum, value[part], term, sums))
            calls.append(later(kernels.finish_sum, sums, op.lo, op.hi, target[part]))
        return calls

    return bind


def lower_mul(request: Request) -> Bind | None:
    """A product of two tensors."""
    op: ops.Mul = request.op
    rescale = (op.multiplier, int(rounding_half(op.shift)), op.shift)

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        (x, copies_x), (y, copies_y) = (_spread(value, output, scratch) for value in inputs)
        arguments = (x, y, rescale, op.lo, op.hi, output.reshape(-1))
        return [*copies_x, *copies_y, later(kernels.multiply, *arguments)]

    return bind


def lower_rescale(request: Request) -> Bind | None:
    """One tensor to another scale."""
    op: ops.Rescale = request.op
    rescale = (op.multiplier, 1 << (op.shift - 1), op.shift)

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        x = inputs[0].reshape(-1)
        arguments = (x, x.size, rescale, op.lo, op.hi, (0, x.size), output.reshape(-1))
        return [later(kernels.rescale_runs, *arguments)]

    return bind


def lower_clamp(request: Request) -> Bind | None:
    """A clamp; bounds beyond the type's range change nothing."""
    op: ops.Clamp = request.op
    limits = np.iinfo(request.inputs[0].dtype)
    lo, hi = (int(np.clip(bound, limits.min, limits.max)) for bound in (op.lo, op.hi))

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        return [later(np.clip, inputs[0], lo, hi, output)]

    return bind if request.inputs[0].dtype == request.output.dtype else None


def lower_table(request: Request) -> Bind | None:
    """A function of one tensor, looked up or interpolated."""
    op: ops.Table = request.op
    table = np.ascontiguousarray(op.table, dtype=np.int16 if op.table.shape[-1] == 513 else request.output.dtype)
    expected = "int16" if op.table.shape[-1] == 513 else "int8"
    per_channel = table.ndim == 2
    if request.inputs[0].dtype != expected or (per_channel and len(request.output.shape) not in (2, 4)):
        return None
    if op.table.dtype.kind != "i" or not np.array_equal(table, op.table):
        return None

    drop = (int(rounding_half(op.dropped_bits)), op.dropped_bits, *INT_RANGE["int16" if op.dropped_bits else "int32"])

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        x, entries, target = inputs[0].reshape(-1), table.reshape(-1), output.reshape(-1)
        if expected == "int16":
            return [later(kernels.interpolate, x, entries, drop, target)]
        return [later(kernels.look_up_channels if per_channel else kernels.look_up, x, entries, target)]

    return bind
