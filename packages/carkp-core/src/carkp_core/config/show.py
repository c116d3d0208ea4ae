"""A config as text: the resolved values, each with where it was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from carkp_core.config.located import LocatedDict


def show(config: LocatedDict, origins: bool = True) -> Iterator[str]:
    """Lines of Python-like text, each value with its origin as a comment."""
    for name, value in config.items():
        if _is_data(value):
            yield from _lines(name, value, 0, _comment(config, name) if origins else "", origins)


def _is_data(value: Any) -> bool:
    return value is None or isinstance(value, (dict, list, tuple, str, int, float, bool))


def _lines(name: str, value: Any, depth: int, comment: str, origins: bool) -> Iterator[str]:
    indent = "    " * depth
    head = f"{indent}{name} = " if depth == 0 else f"{indent}{name}="
    tail = "" if depth == 0 else ","
    if isinstance(value, dict) and value:
        yield f"{head}dict({comment}"
        for key, item in value.items():
            yield from _lines(str(key), item, depth + 1, _comment(value, key) if origins else "", origins)
        yield f"{indent}){tail}"
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        yield f"{head}[{comment}"
        for item in value:
            yield from _item(item, depth + 1, origins)
        yield f"{indent}]{tail}"
    else:
        yield f"{head}{_text(value)}{tail}{comment}"


def _item(item: Any, depth: int, origins: bool) -> Iterator[str]:
    indent = "    " * depth
    if not isinstance(item, dict):
        yield f"{indent}{_text(item)},"
        return
    yield f"{indent}dict("
    for key, value in item.items():
        yield from _lines(str(key), value, depth + 1, _comment(item, key) if origins else "", origins)
    yield f"{indent}),"


def _text(value: Any) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def _comment(node: Any, key: str) -> str:
    origin = node.origin(key) if isinstance(node, LocatedDict) else None
    if origin is None:
        return ""
    place = Path(origin.file).name if origin.line else origin.file
    return f"  # {place}:{origin.line}" if origin.line else f"  # {place}"
