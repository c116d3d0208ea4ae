"""Whether a config's literal can be what a callable's annotation says: a number, a text, a list, a mapping.

Only clear contradictions count (``"320"`` or ``2.5`` for an int, ``5`` for a list). An annotation that is not
understood, or stands for objects, accepts everything; a whole number may be written as a float (``3.0``).
"""

from __future__ import annotations

import inspect
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

from carkp_core.config.recipe import is_recipe

_SEQUENCES = (list, tuple, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)


def argument_hints(target: Callable[..., Any]) -> Mapping[str, Any]:
    """Evaluated annotations of a callable's arguments; nothing where they cannot be evaluated."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # annotations are foreign code: names that exist for type checkers only, any expression
        return {}


def fits(hint: Any, value: Any) -> bool:
    """True unless the value clearly contradicts the annotation. What a recipe builds is not known yet."""
    literal = value is None or isinstance(value, (Real, str, bytes, list, tuple, dict))
    if not literal or is_recipe(value):
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(part, value) for part in arguments)
    if origin is typing.Annotated:
        return fits(arguments[0], value)
    if origin is typing.Literal:
        return value in arguments
    kind = origin or hint
    if kind in (None, type(None)):
        return value is None
    if kind is int:
        return isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if kind in (float, complex, bool):
        return isinstance(value, Real)
    if kind is str or (isinstance(kind, type) and issubclass(kind, PurePath)):
        return isinstance(value, str)
    if kind in _SEQUENCES:
        return _fits_sequence(kind, arguments, value)
    if kind in _MAPPINGS:
        return isinstance(value, dict)
    return True


def _fits_sequence(kind: Any, arguments: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, (str, bytes)):
        return kind in (abc.Sequence, abc.Iterable, abc.Collection) and arguments in ((), (str,), (Any,))
    if isinstance(value, dict):
        return kind in (abc.Iterable, abc.Collection)
    if not isinstance(value, (list, tuple)):
        return False
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(fits, arguments, value))
    return not arguments or all(fits(arguments[0], item) for item in value)


def described(hint: Any) -> str:
    """An annotation as a reader of a config would say it."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "").replace("collections.abc.", "").replace("NoneType", "None")
