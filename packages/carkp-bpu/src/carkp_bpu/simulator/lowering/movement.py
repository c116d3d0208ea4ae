"""Operators that move elements: concat, slice, pad, reshape, transpose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from carkp_bpu.simulator.gemm import later
from carkp_bpu.simulator.kernels import elementwise as kernels
from carkp_bpu.simulator.lowering.base import Array, Bind, Request, Run, Scratch, logical, stored_axis
from carkp_core.ir import operators as ops


def lower_concat(request: Request) -> Bind | None:
    """Each input rescaled straight into its place."""
    op: ops.Concat = request.op
    axis = stored_axis(op.axis, len(request.output.shape))

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        inner = int(np.prod(output.shape[axis + 1 :]))
        step, begin = output.shape[axis] * inner, 0
        calls: list[Run] = []
        for term, value in zip(op.terms, inputs, strict=True):
            run = value.shape[axis] * inner
            rescale = (term.multiplier, 1 << (term.shift - 1), term.shift)
            arguments = (value.reshape(-1), run, rescale, op.lo, op.hi, (begin, step), output.reshape(-1))
            calls.append(later(kernels.rescale_runs, *arguments))
            begin += run
        return calls

    return bind


def lower_slice(request: Request) -> Bind | None:
    """A copy of some indices of one dimension."""
    op: ops.Slice = request.op
    index = [slice(None)] * len(request.output.shape)
    index[stored_axis(op.axis, len(index))] = slice(op.start, op.stop, op.step)

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        return [later(np.copyto, output, inputs[0][tuple(index)])]

    return bind


def lower_pad(request: Request) -> Bind | None:
    """A constant border with the input inside."""
    op: ops.Pad = request.op
    top, left, bottom, right = op.padding_tlbr

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        target = logical(output)
        height, width = target.shape[-2:]
        inside = target[..., top : height - bottom, left : width - right]
        copy = later(np.copyto, inside, logical(inputs[0]))
        return [later(output.fill, op.value), copy]

    return bind


def lower_reshape(request: Request) -> Bind | None:
    """The same elements in the IR's order, in another shape."""

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        source, target = logical(inputs[0]), logical(output)
        room = scratch.take(source.shape, source.dtype)
        gather = later(np.copyto, room, source)
        return [gather, later(np.copyto, target, room.reshape(target.shape))]

    return bind


def lower_transpose(request: Request) -> Bind | None:
    """A permutation of the dimensions."""
    op: ops.Transpose = request.op

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        return [later(np.copyto, logical(output), logical(inputs[0]).transpose(op.permutation))]

    return bind
