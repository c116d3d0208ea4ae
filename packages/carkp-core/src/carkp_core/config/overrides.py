"""``--opts``: overrides of top-level names and of dotted keys."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from carkp_core.config.located import LocatedDict, Origin
from carkp_core.errors import ConfigError

#: Names whose missing dict, or missing keys, an override may add.
OPEN_NAMES = ("compile_cfg", "deploy_inputs", "infer_cfg", "onnx_cfg", "calops_cfg")


def parse_overrides(options: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split ``KEY=VALUE`` texts into top-level names and dotted keys.

    Values are Python literals where they parse as such, else strings.
    """
    names: dict[str, Any] = {}
    dotted: dict[str, Any] = {}
    for option in options:
        key, separator, text = option.partition("=")
        key = key.strip()
        if not separator or not all(part.isidentifier() or part.isdigit() for part in key.split(".")):
            raise ConfigError(
                "an override needs the form KEY=VALUE",
                where=f"--opts {option}",
                allowed="data_root=path, or a dotted key such as float_trainer.num_epochs=2",
            )
        target = dotted if "." in key else names
        target[key] = _literal(text)
    return names, dotted


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def apply_dotted(config: LocatedDict, dotted: dict[str, Any]) -> None:
    """Set dotted keys on the dicts of an executed config and on the copies made of them."""
    for key, value in dotted.items():
        *path, last = key.split(".")
        if path[0] in OPEN_NAMES and path[0] not in config:
            config.put(path[0], LocatedDict(), Origin("--opts"))
        owner = _descend(config, path, key)
        if isinstance(owner, list):
            owner[_index(owner, last, key)] = value
            continue
        if last not in owner and path[0] not in OPEN_NAMES and "type" not in owner:
            _unknown(owner, last, key)
        before = owner.origin(last) if isinstance(owner, LocatedDict) else None
        for target in _copies(config, owner):
            if target is owner or target.origin(last) == before:
                target.put(last, value, Origin("--opts"))


def _descend(config: LocatedDict, path: list[str], key: str) -> Any:
    node: Any = config
    for depth, part in enumerate(path):
        if isinstance(node, (list, tuple)):
            node = node[_index(node, part, key)]
        elif isinstance(node, dict):
            if part not in node:
                _unknown(node, part, key)
            node = node[part]
        if not isinstance(node, (dict, list, tuple)):
            place = ".".join(path[: depth + 1])
            raise ConfigError(f"{place} holds no keys", where=f"--opts {key}", seen=repr(node))
    return node


def _index(items: Any, part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(
            "no such position in the list", where=f"--opts {key}", seen=part, allowed=f"0..{len(items) - 1}"
        )
    return int(part)


def _unknown(node: dict[str, Any], part: str, key: str) -> None:
    close = difflib.get_close_matches(part, node, n=1)
    raise ConfigError(
        f"no key {part!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
        where=f"--opts {key}",
        allowed=", ".join(sorted(map(str, node))[:30]),
    )


def _copies(config: Any, owner: dict[str, Any]) -> Iterator[LocatedDict]:
    """Every located dict of the owner's lineage in the tree, the owner included, each once."""
    seen: set[int] = set()
    pending: list[Any] = [config]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, dict):
            if isinstance(node, LocatedDict) and node.lineage == getattr(owner, "lineage", None):
                yield node
            pending.extend(node.values())
        elif isinstance(node, (list, tuple)):
            pending.extend(node)
