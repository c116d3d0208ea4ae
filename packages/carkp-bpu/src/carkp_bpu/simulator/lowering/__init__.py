"""From nodes of the IR to calls on buffers: one function per operator, listed here.

A lowering returns a ``Bind`` or None; None, and any operator not listed (a plugin's), means that the node is
executed by the reference executor, which knows everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from carkp_bpu.simulator.gemm import later
from carkp_bpu.simulator.lowering import conv, elementwise, movement, pool
from carkp_bpu.simulator.lowering.base import Array, Bind, Request, Run, Scratch, logical
from carkp_core.ir import operators as ops
from carkp_core.ir.reference import execute_node

LOWERINGS: dict[type, Callable[[Request], Bind | None]] = {
    ops.Conv2d: conv.lower_conv2d,
    ops.ConvTranspose2d: conv.lower_conv_transpose2d,
    ops.Add: elementwise.lower_add,
    ops.Mul: elementwise.lower_mul,
    ops.Rescale: elementwise.lower_rescale,
    ops.Clamp: elementwise.lower_clamp,
    ops.Table: elementwise.lower_table,
    ops.Concat: movement.lower_concat,
    ops.Slice: movement.lower_slice,
    ops.Pad: movement.lower_pad,
    ops.Reshape: movement.lower_reshape,
    ops.Transpose: movement.lower_transpose,
    ops.MaxPool: pool.lower_max_pool,
    ops.AvgPool: pool.lower_avg_pool,
    ops.Resize: pool.lower_resize,
}


#: ``kernel(op, inputs) -> array``: an operator on NCHW arrays.
Kernel = Callable[[Any, tuple[Any, ...]], Any]


def lower(request: Request, kernel: Kernel | None = None) -> tuple[Bind, bool]:
    """How to execute a node, and whether a fast kernel does it (else a plugin's kernel or the reference executor)."""
    lowering = LOWERINGS.get(type(request.op))
    bind = lowering(request) if lowering is not None else None
    return (bind, True) if bind is not None else (_lower_as_it_is(request, kernel), False)


def _lower_as_it_is(request: Request, kernel: Kernel | None) -> Bind:
    node = request.node

    def run(inputs: Sequence[Array], output: Array) -> None:
        values: tuple[Any, ...] = tuple(np.ascontiguousarray(logical(value)) for value in inputs)
        result = execute_node(node, values) if kernel is None else kernel(node.op, values)
        np.copyto(logical(output), np.asarray(result).astype(node.type.dtype))

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        return [later(run, inputs, output)]

    return bind
