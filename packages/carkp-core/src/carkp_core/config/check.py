"""Checking a config tree before anything heavy starts: every type known, every argument accepted, none missing."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from carkp_core.config.located import LocatedDict
from carkp_core.config.recipe import deferred_arguments, is_recipe
from carkp_core.config.values import argument_hints, described, fits
from carkp_core.context import Context
from carkp_core.errors import CarkpError, ConfigError

_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def check_tree(value: Any, path: str, context: Context, injected: Collection[str] = ()) -> list[ConfigError]:
    """Every problem in a config value, depth first.

    ``injected`` are arguments that the owner of the value will add when it builds it.
    """
    if is_recipe(value):
        return _check_recipe(value, path, context, injected)
    problems: list[ConfigError] = []
    if isinstance(value, dict):
        for key, item in value.items():
            problems += check_tree(item, f"{path}.{key}", context)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            problems += check_tree(item, f"{path}[{index}]", context)
    return problems


def require_sound(value: Any, path: str, context: Context) -> None:
    """Raise the first problem of a config value, with the number of further ones."""
    problems = check_tree(value, path, context)
    if problems:
        first = problems[0]
        if len(problems) > 1:
            rest = "\n".join(f"  also: {str(p).splitlines()[0]}" for p in problems[1:6])
            more = f"\n  and {len(problems) - 6} more" if len(problems) > 6 else ""
            first.remedy = (f"{first.remedy}\n" if first.remedy else "see docs/config.md\n") + rest + more
        raise first


def _check_recipe(node: dict[str, Any], path: str, context: Context, injected: Collection[str]) -> list[ConfigError]:
    try:
        target = context.catalog.resolve(node["type"], f"{path}.type{_place(node, 'type')}")
    except ConfigError as error:
        return [error]
    except CarkpError as error:
        return [ConfigError(error.message, where=path, seen=error.seen, allowed=error.allowed, remedy=error.remedy)]
    if not callable(target):
        return [ConfigError("type is not callable", where=f"{path}{_place(node, 'type')}", seen=repr(target))]
    problems = _check_arguments(node, path, target, injected)
    lazy = deferred_arguments(target)
    for key, value in node.items():
        if key != "type":
            problems += _check_child(value, f"{path}.{key}", context, lazy.get(key, ()))
    return problems


def _check_child(value: Any, path: str, context: Context, injected: Collection[str]) -> list[ConfigError]:
    if isinstance(value, (list, tuple)):
        return [p for i, v in enumerate(value) for p in check_tree(v, f"{path}[{i}]", context, injected)]
    return check_tree(value, path, context, injected)


def _check_arguments(
    node: dict[str, Any], path: str, target: Callable[..., Any], injected: Collection[str]
) -> list[ConfigError]:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return []
    name = getattr(target, "__name__", str(target))
    accepts_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    named = [key for key, p in parameters.items() if p.kind not in _VARIADIC and key != "context"]
    problems: list[ConfigError] = []
    for key in node:
        if key == "type" or key in parameters or accepts_any:
            continue
        close = difflib.get_close_matches(key, named, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        message = f"{name} has no argument {key!r}{hint}{_place(node, key)}"
        problems.append(ConfigError(message, where=path, allowed=", ".join(named) or "no arguments"))
    given = {*node, *injected, "context"}
    for key, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty and parameter.kind not in _VARIADIC
        if required and key not in given:
            message = f"{name} needs the argument {key!r}{_place(node, 'type')}"
            problems.append(ConfigError(message, where=path, allowed=", ".join(named)))
    return problems + _check_values(node, path, target, name, parameters)


def _check_values(
    node: dict[str, Any], path: str, target: Callable[..., Any], name: str, parameters: Mapping[str, inspect.Parameter]
) -> list[ConfigError]:
    """Literals that contradict the annotations; a default is fine whatever its annotation says."""
    hints = argument_hints(target)
    problems: list[ConfigError] = []
    for key, value in node.items():
        if key not in hints or key not in parameters or value is None or is_recipe(value):
            continue
        if not fits(hints[key], value) and value != parameters[key].default:
            message = f"{name}: the argument {key!r} has another type{_place(node, key)}"
            allowed = described(hints[key])
            problems.append(
                ConfigError(message, where=path, seen=f"{value!r} ({type(value).__name__})", allowed=allowed)
            )
    return problems


def _place(node: dict[str, Any], key: str) -> str:
    origin = node.origin(key) if isinstance(node, LocatedDict) else None
    return f" ({origin})" if origin else ""
