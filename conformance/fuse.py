"""Chains of TOSA operators as the one IR operator that carkp's converter makes of a layer.

=========================================  ==========================================================================
TOSA                                       the integer IR
=========================================  ==========================================================================
convolution, RESCALE, CLAMP                convolution with multipliers, shifts and bounds (its sum may have 48 bits)
MUL, RESIZE or TABLE, RESCALE, CLAMP       the operator with multiplier, shift and bounds
RESCALE each, CONCAT                       concat
RESCALE each, ADD, RESCALE, CLAMP          add: terms with 15 fractional bits, which the last RESCALE drops
convolution, RESCALE each, ADD ...         convolution with a residual
=========================================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from carkp_core.ir import operators as ops
from carkp_core.ir.arithmetic import ADD_FRACTION_BITS, TABLE_FRACTION_BITS
from conformance.program import Operator, Program
from conformance.translate import TRANSLATORS, Translation, Writer, clamp_bounds, factors

#: Multiplier and shift that drop an add's fractional bits, and those of an interpolated table.
DROP_ADD = (1 << 30, 30 + ADD_FRACTION_BITS)
DROP_TABLE = (1 << 30, 30 + TABLE_FRACTION_BITS)


@attrs.frozen
class _Term:
    """A rescaled tensor that an add or a concat takes: where it comes from, and its factors."""

    source: str
    multiplier: list[int]
    shift: list[int]


def fuse(program: Program) -> Translation:
    """A chain as a verified graph, fused.

    Raises
    ------
    LeftOutError
        When it uses what the IR does not have.
    ValueError
        When the graph breaks a rule of the IR, or the chain is not one of those above.
    """
    w = Writer.of(program)
    terms: dict[str, _Term] = {}
    for o in program.operators:
        feeds = {user.name for user in program.operators if o.output in user.inputs}
        if o.name == "RESCALE" and feeds <= {"ADD", "SUB", "CONCAT"} and feeds:
            terms[o.output] = _Term(w.tensor(o.inputs[0]), *factors(w, o))
            continue
        if o.name in ("ADD", "SUB", "CONCAT"):
            join = _concat if o.name == "CONCAT" else _add
            w.names[o.output] = join(w, o, [terms[name] for name in o.inputs])
        elif o.inputs[0] in program.inputs:
            w.names[o.output] = TRANSLATORS[o.name](w, o)
        elif o.name == "RESCALE":
            w.names[o.output] = _fold(w, o, **_rescaled(w, o))
        elif o.name == "CLAMP":
            lo, hi = clamp_bounds(w, o)
            w.names[o.output] = _fold(w, o, lo=lo, hi=hi)
        else:
            w.names[o.output] = TRANSLATORS[o.name](w, o)
    return w.finished()


def _fold(w: Writer, o: Operator, **changes: Any) -> str:
    """Change the last node, which makes the operator's input, and give it the operator's type."""
    node = w.nodes.pop()
    if w.tensor(o.inputs[0]) != node.name:
        raise ValueError(f"{o.name} does not follow {node.op.kind}")
    kind = attrs.evolve(node.type, dtype=w.range(o)[0])
    op: Any = node.op
    w.nodes.append(attrs.evolve(node, op=attrs.evolve(op, **changes), type=kind))
    w.types[node.name] = kind
    return node.name


def _rescaled(w: Writer, o: Operator) -> dict[str, Any]:
    """What a RESCALE changes in the operator before it."""
    multiplier, shift = factors(w, o)
    op: Any = w.nodes[-1].op
    if isinstance(op, ops.Table):
        _require((multiplier[0], shift[0]) == DROP_TABLE)
        return {"dropped_bits": TABLE_FRACTION_BITS}
    _, lo, hi = w.range(o)
    if isinstance(op, ops.Add) or getattr(op, "residual", None):
        _require((multiplier[0], shift[0]) == DROP_ADD)
        return {"lo": lo, "hi": hi}
    if isinstance(op, (ops.Conv2d, ops.ConvTranspose2d)):
        channels = op.bias.size
        return {"multiplier": _spread(multiplier, channels), "shift": _spread(shift, channels), "lo": lo, "hi": hi}
    return {"multiplier": multiplier[0], "shift": shift[0], "lo": lo, "hi": hi}


def _add(w: Writer, o: Operator, terms: Sequence[_Term]) -> str:
    """A sum in int32 with its fractional bits, or the convolution before it with a residual."""
    made = [_term(term, negative=o.name == "SUB" and index == 1) for index, term in enumerate(terms)]
    dtype, lo, hi = w.range(o)
    first = w.nodes[-1] if w.nodes and w.nodes[-1].name == terms[0].source else None
    if first is None or not isinstance(first.op, ops.Conv2d):
        return w.add(ops.Add(tuple(made), lo, hi), [term.source for term in terms], dtype)
    channels = first.op.bias.size
    shift = _spread(terms[0].shift, channels) + ADD_FRACTION_BITS
    multiplier = _spread(terms[0].multiplier, channels)
    op = attrs.evolve(first.op, multiplier=multiplier, shift=shift, residual=made[1])
    w.nodes.pop()
    return w.add(op, [first.inputs[0], terms[1].source], dtype)


def _concat(w: Writer, o: Operator, terms: Sequence[_Term]) -> str:
    dtype, lo, hi = w.range(o)
    made = tuple(ops.Term(term.multiplier[0], term.shift[0]) for term in terms)
    op = ops.Concat(made, w.layout.axis(o.attributes["axis"]), lo, hi)
    return w.add(op, [term.source for term in terms], dtype)


def _term(term: _Term, negative: bool) -> ops.Term:
    return ops.Term(term.multiplier[0], term.shift[0] + ADD_FRACTION_BITS, negative)


def _spread(numbers: Sequence[int], channels: int) -> Any:
    return np.broadcast_to(np.asarray(numbers, dtype=np.int64), (channels,))


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError("a RESCALE here may only drop fractional bits")
