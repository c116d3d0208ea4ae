"""An operator's fields as plain values and arrays: the common ground of the text, binary and digest forms.

A field is an integer, a boolean, a string, None, an array, a ``Term``, or a tuple of these. In plain form an array
is ``{"array": index}`` and a term ``{"term": [multiplier, shift, negative]}``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from carkp_core.errors import GraphError
from carkp_core.ir.graph import Operation
from carkp_core.ir.operators import Term

Array = npt.NDArray[Any]


def plain_fields(op: Operation, keep_array: Callable[[Array], Any]) -> dict[str, Any]:
    """The fields of an operator by name, arrays replaced by what ``keep_array`` returns for them."""
    return {name: _plain(getattr(op, name), keep_array) for name in _field_names(type(op))}


def make_operation(kind: type[Operation], fields: dict[str, Any], arrays: Sequence[Array]) -> Operation:
    """The operator whose plain fields these are.

    Raises
    ------
    GraphError
        When a field is unknown, missing or of another type.
    """
    known = _field_names(kind)
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise GraphError(f"operator {kind.kind!r} has no field {unknown[0]!r}", allowed=", ".join(sorted(known)))
    try:
        return kind(**{name: _value(plain, arrays) for name, plain in fields.items()})
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise GraphError(f"operator {kind.kind!r} cannot be made from its stored fields", seen=str(error)) from error


def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind))


def _plain(value: Any, keep_array: Callable[[Array], Any]) -> Any:
    if isinstance(value, np.ndarray):
        return keep_array(value)
    if isinstance(value, Term):
        return {"term": [int(value.multiplier), int(value.shift), bool(value.negative)]}
    if isinstance(value, (tuple, list)):
        return [_plain(item, keep_array) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if value is None or isinstance(value, (str, float)):
        return value
    raise GraphError(
        f"a field of type {type(value).__name__} cannot be stored",
        allowed="integers, booleans, strings, None, arrays, Term, tuples of these",
    )


def _value(plain: Any, arrays: Sequence[Array]) -> Any:
    if isinstance(plain, list):
        return tuple(_value(item, arrays) for item in plain)
    if isinstance(plain, dict) and set(plain) == {"array"}:
        index = plain["array"]
        if not isinstance(index, int) or not 0 <= index < len(arrays):
            raise IndexError(f"array {index!r} of {len(arrays)}")
        return arrays[index]
    if isinstance(plain, dict) and set(plain) == {"term"}:
        multiplier, shift, negative = plain["term"]
        return Term(int(multiplier), int(shift), bool(negative))
    if isinstance(plain, dict):
        raise TypeError(f"unknown field value {plain!r}")
    return plain
