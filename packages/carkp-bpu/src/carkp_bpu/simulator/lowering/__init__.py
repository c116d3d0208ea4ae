"""From nodes of the IR to calls on buffers: one function per operator, listed here.

A lowering returns a ``Bind`` or None; None, and any operator not listed (a plugin's), means that the node is
executed by the reference executor, which knows everything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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


def lower(request: Request) -> tuple[Bind, bool]:
    """How to execute a node, and whether a fast kernel does it (else the reference executor)."""
    lowering = LOWERINGS.get(type(request.op))
    bind = lowering(request) if lowering is not None else None
    return (bind, True) if bind is not None else (_lower_to_reference(request), False)


def _lower_to_reference(request: Request) -> Bind:
    def run(inputs: Sequence[Array], output: Array) -> None:
        values: tuple[Any, ...] = tuple(np.ascontiguousarray(logical(value)) for value in inputs)
        np.copyto(logical(output), execute_node(request.node, values))

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        return [functools.partial(run, inputs, output)]

    return bind
