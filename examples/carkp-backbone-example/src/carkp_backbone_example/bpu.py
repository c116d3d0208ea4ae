"""``maximum`` on the BPU: a rule, a kernel for the graph simulator, and its form in the machine's own operators.

The machine has no instruction for the maximum of two tensors, but it has max pooling. So the two maps are laid on top
of each other as the two rows of one, and a window of two rows does it. What it costs is what these instructions cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from carkp_backbone_example.maximum import Maximum
from carkp_bpu.checker.rule import Site, rule
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Node, TensorType


@rule("maximum", allowed="int8", remedy="keep both inputs and the output int8")
def maximum_type(site: Site) -> str | None:
    """A maximum takes and gives int8."""
    wrong = [type_.dtype for type_ in (*site.inputs, site.output) if type_.dtype != "int8"]
    return wrong[0] if wrong else None


RULES = (maximum_type,)


def kernel(op: Maximum, inputs: tuple[Any, ...]) -> Any:
    """The operator by two tables of 256 entries: bit-equal to ``op.execute`` and several times faster."""
    if any(x.dtype != np.int8 for x in inputs):
        return op.execute(inputs)
    a, b = (
        table[x.view(np.uint8)] for x, table in zip(inputs, (_table(op, position) for position in (0, 1)), strict=True)
    )
    return np.maximum(a, b, out=a)


def _table(op: Maximum, position: int) -> np.ndarray[Any, Any]:
    """The rescale of one input for every int8 value, at the place of its bits read without sign."""
    values = np.arange(256, dtype=np.uint8).view(np.int8)
    term = op.terms[position]
    rescaled = (values.astype(np.int64) * term.multiplier + (1 << (term.shift - 1))) >> term.shift
    return np.clip(rescaled, op.lo, op.hi).astype(np.int8)


def expand(node: Node, types: Mapping[str, TensorType]) -> Iterator[Node]:
    """[C, H, W] twice -> [C, 1, H W] twice -> [C, 2, H W] -> the larger of the two rows -> [C, H, W]."""
    op, made = node.op, node.type
    assert isinstance(op, Maximum)
    channels, area = made.shape[1], int(np.prod(made.shape[2:]))
    row, rows = (1, channels, 1, area), (1, channels, 2, area)
    flat = [f"{node.name}:{side}" for side in ("a", "b")]
    for name, tensor in zip(flat, node.inputs, strict=True):
        yield Node(name, ops.Reshape(row), (tensor,), types[tensor].with_shape(row))
    both, larger = f"{node.name}:rows", f"{node.name}:larger"
    yield Node(both, ops.Concat(op.terms, 2, op.lo, op.hi), tuple(flat), made.with_shape(rows))
    yield Node(larger, ops.MaxPool((2, 1), (2, 1)), (both,), made.with_shape(row))
    yield Node(node.name, ops.Reshape(made.shape), (larger,), made)
