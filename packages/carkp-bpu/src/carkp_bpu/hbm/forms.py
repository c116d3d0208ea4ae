"""How a field of an instruction is stored: attrs fields that carry their binary form.

``encoding`` and ``listing`` walk these forms, so an instruction is described once, in ``isa``.
"""

from __future__ import annotations

from typing import Any

import attrs
from attrs import frozen

#: struct codes, little endian.
U8, U16, U32, U64, I32 = "B", "H", "I", "Q", "i"
LIMITS = {U8: (0, 2**8 - 1), U16: (0, 2**16 - 1), U32: (0, 2**32 - 1), U64: (0, 2**64 - 1), I32: (-(2**31), 2**31 - 1)}
#: Most items of a ``many`` field.
MANY_LIMIT = 255


@frozen
class Scalar:
    """One integer of a struct code."""

    code: str


@frozen
class Each:
    """A tuple of ``count`` integers of a struct code."""

    code: str
    count: int


@frozen
class Nested:
    """A record in place."""

    record: type


@frozen
class Optional:
    """A uint8 that is 0 or 1, then the record when it is 1."""

    record: type


@frozen
class Many:
    """A uint8 count, then that many records."""

    record: type


Form = Scalar | Each | Nested | Optional | Many


def scalar(code: str) -> Any:
    """An integer field."""
    return attrs.field(metadata={"form": Scalar(code)}, validator=_within)


def each(code: str, count: int) -> Any:
    """A field of several integers."""
    return attrs.field(metadata={"form": Each(code, count)}, validator=_all_within, converter=tuple)


def nested(record: type) -> Any:
    """A field that is a record."""
    return attrs.field(metadata={"form": Nested(record)})


def optional(record: type) -> Any:
    """A field that is a record or None."""
    return attrs.field(metadata={"form": Optional(record)})


def many(record: type) -> Any:
    """A field of up to 255 records."""
    return attrs.field(metadata={"form": Many(record)}, converter=tuple)


def forms(record: type) -> tuple[tuple[str, Form], ...]:
    """Names and forms of a record's fields, in storage order."""
    return tuple((a.name, a.metadata["form"]) for a in attrs.fields(record))


def _within(instance: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    lo, hi = LIMITS[attribute.metadata["form"].code]
    if not lo <= value <= hi:
        raise ValueError(f"{type(instance).__name__}.{attribute.name} is {value}, outside [{lo}, {hi}]")


def _all_within(instance: Any, attribute: attrs.Attribute[Any], value: tuple[int, ...]) -> None:
    form = attribute.metadata["form"]
    lo, hi = LIMITS[form.code]
    if len(value) != form.count or not all(lo <= v <= hi for v in value):
        raise ValueError(
            f"{type(instance).__name__}.{attribute.name} is {value}, not {form.count} integers in [{lo}, {hi}]"
        )
