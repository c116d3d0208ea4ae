"""Instructions as text and back.

One instruction a line: ``name field=value ...``. A record is ``(field=value ...)``, several numbers are joined by
commas, an absent record is ``-``, several records are ``[(...) (...)]``. Text behind ``#`` is a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.forms import Each, Form, Many, Nested, Optional, Scalar, forms
from carkp_core.errors import BackendError

_BY_NAME: dict[str, type[isa.Instruction]] = {kind.__name__.lower(): kind for kind in isa.INSTRUCTIONS}
_TOKEN = re.compile(r"[()\[\]=]|[^\s()\[\]=]+")


def format_instruction(instruction: isa.Instruction) -> str:
    """One line."""
    return f"{type(instruction).__name__.lower()} {_format_record(instruction)}"


def format_listing(instructions: Sequence[isa.Instruction], comments: Sequence[str] = ()) -> Iterator[str]:
    """Lines of a listing; a comment stands above the instruction where it changes."""
    shown = ""
    for index, instruction in enumerate(instructions):
        comment = comments[index] if index < len(comments) else ""
        if comment != shown:
            yield f"# {index}: {comment}"
            shown = comment
        yield format_instruction(instruction)


def parse_listing(lines: Iterable[str]) -> tuple[isa.Instruction, ...]:
    """The instructions of a listing.

    Raises
    ------
    BackendError
        With the line's number when a line is not an instruction.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            found.append(_Parser(text).instruction())
        except ValueError as error:
            raise BackendError("this line is not an instruction", where=f"line {number}", seen=str(error)) from error
    return tuple(found)


def _format_record(record: Any) -> str:
    return " ".join(f"{name}={_format_field(form, getattr(record, name))}" for name, form in forms(type(record)))


def _format_field(form: Form, value: Any) -> str:
    match form:
        case Scalar():
            return str(value)
        case Each():
            return ",".join(map(str, value))
        case Nested():
            return f"({_format_record(value)})"
        case Optional():
            return "-" if value is None else f"({_format_record(value)})"
        case Many():
            return "[" + " ".join(f"({_format_record(item)})" for item in value) + "]"


class _Parser:
    """Recursive descent over the tokens of one line. Raises ValueError."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._position = 0

    def instruction(self) -> isa.Instruction:
        name = self._next()
        if name not in _BY_NAME:
            raise ValueError(f"{name!r} is none of {', '.join(_BY_NAME)}")
        made: isa.Instruction = self._record(_BY_NAME[name])
        if self._position != len(self._tokens):
            raise ValueError(f"{self._tokens[self._position]!r} behind the last field")
        return made

    def _record(self, kind: type) -> Any:
        values = {}
        for name, form in forms(kind):
            self._expect(name)
            self._expect("=")
            values[name] = self._field(form)
        return kind(**values)

    def _field(self, form: Form) -> Any:
        match form:
            case Scalar():
                return int(self._next())
            case Each():
                return tuple(int(part) for part in self._next().split(","))
            case Nested(record):
                return self._enclosed(record)
            case Optional(record):
                if self._peek() == "-":
                    self._next()
                    return None
                return self._enclosed(record)
            case Many(record):
                self._expect("[")
                items = []
                while self._peek() == "(":
                    items.append(self._enclosed(record))
                self._expect("]")
                return tuple(items)

    def _enclosed(self, record: type) -> Any:
        self._expect("(")
        value = self._record(record)
        self._expect(")")
        return value

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._position += 1
        if not token:
            raise ValueError("the line ends early")
        return token

    def _expect(self, token: str) -> None:
        seen = self._next()
        if seen != token:
            raise ValueError(f"{seen!r} where {token!r} belongs")
