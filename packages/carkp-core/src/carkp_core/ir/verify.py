"""The rules of the integer IR, as a table. Run after every pass, on every graph that is read, before every compile.

A rule is a function from a node and its input types to what is wrong, one string each; its docstring is the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.arithmetic import (
    ADD_FRACTION_BITS,
    INT_RANGE,
    MULTIPLIER_MAX,
    SHIFT_MAX,
    SHIFT_MIN,
    TABLE_FRACTION_BITS,
)
from carkp_core.ir.graph import DTYPES, Graph, Node, TensorType

IntArray = npt.NDArray[Any]
Types = tuple[TensorType, ...]

WEIGHT_LIMIT = 127
ACCUMULATOR_MIN, ACCUMULATOR_MAX = INT_RANGE["int32"]


@frozen
class Finding:
    """A broken rule: its name, the node (or the graph's own name), what was seen."""

    rule: str
    node: str
    seen: str
    source: str = ""

    def __str__(self) -> str:
        place = f" ({self.source})" if self.source else ""
        return f"{self.node}{place}: {self.rule}: {self.seen}"


def verify(graph: Graph) -> None:
    """Raise GraphError naming every broken rule, or return."""
    broken = list(findings(graph))
    if broken:
        raise GraphError(
            f"graph {graph.name!r} breaks {len(broken)} rule(s) of the integer IR",
            seen="; ".join(map(str, broken[:8])),
            remedy="a graph of carkp's own converter that does this is a defect: please report it",
        )


def findings(graph: Graph) -> Iterator[Finding]:
    """Every broken rule. Rules of a node need its inputs' types, so they wait until the topology is sound."""
    topology = list(_topology(graph))
    yield from topology
    if topology:
        return
    for declared in graph.inputs:
        for seen in _type_is_sound(declared.type):
            yield Finding("type", declared.name, seen)
    types = graph.types()
    for node in graph.nodes:
        inputs = tuple(types[name] for name in node.inputs)
        for rule, check in RULES.items():
            for seen in check(node, inputs):
                yield Finding(rule, node.name, seen, str(node.source))


def _topology(graph: Graph) -> Iterator[Finding]:
    """Names are unique and not empty; a node reads inputs and earlier nodes; outputs exist."""
    known: set[str] = set()
    for name in (i.name for i in graph.inputs):
        if not name or name in known:
            yield Finding("names", graph.name, f"input {name!r} is empty or taken")
        known.add(name)
    for node in graph.nodes:
        for name in node.inputs:
            if name not in known:
                yield Finding("order", node.name, f"reads {name!r} before it exists", str(node.source))
        if not node.name or node.name in known:
            yield Finding("names", graph.name, f"node {node.name!r} is empty or taken")
        known.add(node.name)
    if not graph.outputs:
        yield Finding("outputs", graph.name, "there are none")
    for name in graph.outputs:
        if name not in known:
            yield Finding("outputs", graph.name, f"{name!r} does not exist")


def type_rule(node: Node, inputs: Types) -> Iterator[str]:
    """A tensor has a known type, a positive finite float32 scale and a shape that starts with N = 1."""
    yield from _type_is_sound(node.type)


def shape_rule(node: Node, inputs: Types) -> Iterator[str]:
    """A node's shape is the one that its operator infers."""
    try:
        inferred = node.op.infer_shape(tuple(t.shape for t in inputs))
    except (ValueError, IndexError) as error:
        yield str(error)
        return
    if tuple(inferred) != tuple(node.type.shape):
        yield f"{node.type.shape}, but the operator makes {tuple(inferred)}"


def clamp_rule(node: Node, inputs: Types) -> Iterator[str]:
    """A clamp is not empty and lies inside the output's type; a constant's type is the output's."""
    op: Any = node.op
    if hasattr(op, "lo") and hasattr(op, "hi"):
        lowest, highest = INT_RANGE.get(node.type.dtype, (0, -1))
        if not lowest <= op.lo <= op.hi <= highest:
            yield f"[{op.lo}, {op.hi}] in {node.type.dtype}"
    if isinstance(op, ops.Constant) and str(op.value.dtype) != node.type.dtype:
        yield f"a constant of {op.value.dtype} for {node.type.dtype}"
    if isinstance(op, ops.Pad):
        lowest, highest = INT_RANGE.get(node.type.dtype, (0, -1))
        if not lowest <= op.value <= highest:
            yield f"pad value {op.value} in {node.type.dtype}"


def rescale_rule(node: Node, inputs: Types) -> Iterator[str]:
    """Multipliers lie in [0, 2**31), shifts in [2, 62]; shifts of an add's terms are larger by 15.

    A product of int32 tensors fits int64 with multiplier 1 alone; its shift lies in [0, 62].
    """
    op: Any = node.op
    if isinstance(op, ops.Mul) and any(t.dtype == "int32" for t in inputs):
        if op.multiplier != 1 or not 0 <= op.shift <= SHIFT_MAX:
            yield f"multiplier {op.multiplier}, shift {op.shift} of a product of int32"
        return
    in_add = isinstance(op, ops.Add) or (isinstance(op, ops.Conv2d) and op.residual is not None)
    for term in getattr(op, "terms", ()):
        yield from _rescale_is_sound(term.multiplier, term.shift, in_add)
    if isinstance(op, ops.Conv2d) and op.residual is not None:
        yield from _rescale_is_sound(op.residual.multiplier, op.residual.shift, True)
    if isinstance(op, ops.AvgPool):
        # Entry 0 is the divisor of an empty window, which sums to 0 whatever it is multiplied by.
        yield from _rescale_is_sound(op.multiplier[1:], op.shift[1:], False)
    elif hasattr(op, "multiplier"):
        yield from _rescale_is_sound(op.multiplier, op.shift, in_add)


def weight_rule(node: Node, inputs: Types) -> Iterator[str]:
    """Weights lie in [-127, 127]; there is one bias, multiplier and shift for each output channel."""
    op = node.op
    if not isinstance(op, (ops.Conv2d, ops.ConvTranspose2d)):
        return
    if op.weight.size and int(op.weight.min()) < -WEIGHT_LIMIT:
        yield f"weight {int(op.weight.min())}"
    channels = output_channels(op)
    for name in ("bias", "multiplier", "shift"):
        if getattr(op, name).shape != (channels,):
            yield f"{name} of shape {getattr(op, name).shape} for {channels} channels"


def accumulator_rule(node: Node, inputs: Types) -> Iterator[str]:
    """The accumulator, bias included, fits int32 whatever the input."""
    op = node.op
    if isinstance(op, (ops.Conv2d, ops.ConvTranspose2d)) and inputs[0].dtype in INT_RANGE:
        lowest, highest = accumulator_bounds(op, inputs[0].dtype)
        outside = np.flatnonzero((lowest < ACCUMULATOR_MIN) | (highest > ACCUMULATOR_MAX))
        for channel in outside[:1]:
            yield f"channel {channel} may reach [{lowest[channel]}, {highest[channel]}]"
    elif isinstance(op, ops.AvgPool) and inputs[0].dtype in INT_RANGE:
        most = op.kernel_hw[0] * op.kernel_hw[1] * -INT_RANGE[inputs[0].dtype][0]
        if most > ACCUMULATOR_MAX:
            yield f"a window may sum to {most}"
    elif isinstance(op, ops.Resize) and op.mode != "nearest" and inputs[0].dtype in INT_RANGE:
        most = op.numerator_hw[0] * op.numerator_hw[1] * -INT_RANGE[inputs[0].dtype][0]
        if most > ACCUMULATOR_MAX:
            yield f"four weighted neighbours may sum to {most}"


def table_rule(node: Node, inputs: Types) -> Iterator[str]:
    """An int8 tensor has tables of 256 entries, an int16 tensor one of 513; entries have the output's type.

    An interpolated table that drops no fractional bits has an int32 output; otherwise all 7 are dropped.
    """
    op = node.op
    if not isinstance(op, ops.Table):
        return
    length = {"int8": 256, "int16": 513}.get(inputs[0].dtype)
    if length is None or op.table.shape[-1] != length or op.table.ndim > (2 if length == 256 else 1):
        yield f"{op.table.shape} for {inputs[0].dtype}"
    made = str(op.table.dtype)
    if length == 513 and op.dropped_bits == 0:
        made = "int32" if made == "int16" else made
    elif op.dropped_bits != TABLE_FRACTION_BITS:
        yield f"{op.dropped_bits} fractional bits dropped"
    if made != node.type.dtype:
        yield f"entries of {made} for {node.type.dtype}"


def average_rule(node: Node, inputs: Types) -> Iterator[str]:
    """Average pooling has a multiplier for every count that a window can have."""
    op = node.op
    if isinstance(op, ops.AvgPool):
        counts = (op.kernel_hw[0] * op.kernel_hw[1] + 1,)
        if op.multiplier.shape != counts or op.shift.shape != counts:
            yield f"{op.multiplier.shape} multipliers, {op.shift.shape} shifts for {counts} counts"


def same_steps_rule(node: Node, inputs: Types) -> Iterator[str]:
    """An operator that only moves or selects elements keeps their type and scale."""
    if isinstance(node.op, (ops.Slice, ops.Pad, ops.MaxPool, ops.Clamp, ops.Reshape, ops.Transpose)):
        before, after = inputs[0], node.type
        if (before.dtype, np.float32(before.scale)) != (after.dtype, np.float32(after.scale)):
            yield f"{before.dtype} * {before.scale!r} becomes {after.dtype} * {after.scale!r}"


#: Rule name -> function. A plugin's operator is judged by the rules that do not ask for a class of core's.
RULES: dict[str, Callable[[Node, Types], Iterator[str]]] = {
    "type": type_rule,
    "shape": shape_rule,
    "clamp": clamp_rule,
    "rescale": rescale_rule,
    "weight": weight_rule,
    "accumulator": accumulator_rule,
    "table": table_rule,
    "average": average_rule,
    "same steps": same_steps_rule,
}


def output_channels(op: ops.Conv2d | ops.ConvTranspose2d) -> int:
    """The number of output channels of a (transposed) convolution."""
    return int(op.weight.shape[0] if isinstance(op, ops.Conv2d) else op.weight.shape[1] * op.groups)


def accumulator_bounds(op: ops.Conv2d | ops.ConvTranspose2d, input_dtype: str) -> tuple[IntArray, IntArray]:
    """The least and greatest accumulator of each output channel, bias included, over all inputs; int64 [O]."""
    lowest, highest = INT_RANGE[input_dtype]
    weight = weight_rows(op)
    positive = np.maximum(weight, 0).sum(axis=1)
    negative = np.minimum(weight, 0).sum(axis=1)
    bias = op.bias.astype(np.int64)
    # Padding and borders leave terms out; 0 lies in the input's range, so they are covered.
    return positive * lowest + negative * highest + bias, positive * highest + negative * lowest + bias


def weight_rows(op: ops.Conv2d | ops.ConvTranspose2d) -> IntArray:
    """All weights that an output channel may be summed with, int64 [O, count]."""
    weight = op.weight.astype(np.int64)
    if isinstance(op, ops.ConvTranspose2d):
        in_channels, group_out, kh, kw = weight.shape
        weight = weight.reshape(op.groups, in_channels // op.groups, group_out, kh, kw).swapaxes(1, 2)
    return weight.reshape(output_channels(op), -1)


def _type_is_sound(type_: TensorType) -> Iterator[str]:
    if type_.dtype not in DTYPES:
        yield f"type {type_.dtype!r}"
    scale = float(np.float32(type_.scale))
    if not (math.isfinite(scale) and scale > 0.0):
        yield f"scale {type_.scale!r}"
    if not type_.shape or type_.shape[0] != 1 or any(size < 1 for size in type_.shape):
        yield f"shape {type_.shape}"


def _rescale_is_sound(multiplier: IntArray | int, shift: IntArray | int, in_add: bool) -> Iterator[str]:
    offset = ADD_FRACTION_BITS if in_add else 0
    multipliers, shifts = np.atleast_1d(multiplier), np.atleast_1d(shift) - offset
    for value in multipliers[(multipliers < 0) | (multipliers > MULTIPLIER_MAX)][:1]:
        yield f"multiplier {value}"
    for value in shifts[(shifts < SHIFT_MIN) | (shifts > SHIFT_MAX)][:1]:
        yield f"shift {value + offset} of a term of an add" if in_add else f"shift {value}"
