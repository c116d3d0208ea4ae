"""Running a config file: every dict in it becomes a ``LocatedDict``, overridden names get their new value."""

from __future__ import annotations

import ast
import difflib
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carkp_core.config.located import LocatedDict, Origin, located_call
from carkp_core.errors import ConfigError

#: Names that carkp reads from any config, so that an override may set them where the config leaves them out.
SETTINGS = ("task_name", "ckpt_dir", "seed", "march")

_CALL = "__carkp_located_call__"


def run_config(path: Path, overrides: Mapping[str, Any]) -> LocatedDict:
    """Execute a config file and return its top-level names with the line of each.

    Parameters
    ----------
    path:
        The file.
    overrides:
        Top-level name -> value that replaces its assignment, so that all that derives from it follows.

    Raises
    ------
    ConfigError
        When the file cannot be read, parsed or executed, or does not assign an overridden name.
    """
    tree = _parse(path)
    assigned = _assigned_names(tree)
    for name in overrides:
        if name not in assigned and name not in SETTINGS:
            close = difflib.get_close_matches(name, [*assigned, *SETTINGS], n=1)
            raise ConfigError(
                f"the config assigns no name {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
                where=f"--opts {name}",
                allowed="a name that the config assigns, or a dotted key into one of its dicts",
            )
    tree = ast.fix_missing_locations(_Locate(str(path), overrides).visit(tree))
    namespace: dict[str, Any] = {
        "__file__": str(path),
        "__name__": "carkp_config",
        "__builtins__": __builtins__,
        _CALL: located_call,
        **{_slot(name): value for name, value in overrides.items()},
    }
    _execute(compile(tree, str(path), "exec"), namespace, path, overrides)
    result = LocatedDict()
    for name, line in assigned.items():
        if name in namespace:
            origin = Origin("--opts") if name in overrides else Origin(str(path), line)
            result.put(name, namespace[name], origin)
    for name in overrides.keys() - assigned.keys():
        result.put(name, overrides[name], Origin("--opts"))
    return result


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    except SyntaxError as error:
        raise ConfigError(
            f"not valid Python: {error.msg}", where=f"{path}:{error.lineno}", seen=(error.text or "").strip() or None
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the config cannot be read", where=str(path), seen=str(error)) from error


def _execute(code: Any, namespace: dict[str, Any], path: Path, overrides: Mapping[str, Any]) -> None:
    try:
        exec(code, namespace)
    except Exception as error:  # a config is the user's code and may raise anything
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        given = ", ".join(f"{name}={value!r}" for name, value in overrides.items())
        raise ConfigError(
            f"the config raised {type(error).__name__}: {error}",
            where=where,
            seen=f"--opts {given}" if given else None,
            remedy="see whether an override has the value that this line expects" if given else None,
        ) from error


def _slot(name: str) -> str:
    return f"__carkp_override_{name}__"


def _assigned_names(tree: ast.Module) -> dict[str, int]:
    """Names that the module's top level assigns (also inside if, for, with, try), with their last line."""
    found: dict[str, int] = {}
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        statement = pending.pop(0)
        for name in _targets(statement):
            found[name] = statement.lineno
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            continue
        for block in ("body", "orelse", "finalbody"):
            pending.extend(getattr(statement, block, ()))
    return found


def _targets(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Assign):
        names = [n for target in statement.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        return [n.id for n in names if isinstance(n.ctx, ast.Store)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


class _Locate(ast.NodeTransformer):
    """``dict(a=1)`` and ``{"a": 1}`` -> located calls; ``name = value`` -> the override, where there is one."""

    def __init__(self, file: str, overrides: Mapping[str, Any]) -> None:
        self.file = file
        self.overrides = overrides
        self.depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        if self.depth:
            return node
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            node.value = self._overridden(node.targets[0].id, node.value)
            return node
        return [node, *(self._assignment(name, node) for name in _targets(node) if name in self.overrides)]

    def _assignment(self, name: str, place: ast.stmt) -> ast.AST:
        """An override of a name that stands among several targets: ``a, b = 1, 2`` and then ``b = <override>``."""
        value = ast.Name(_slot(name), ast.Load())
        return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), place)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if not self.depth and isinstance(node.target, ast.Name) and node.value is not None:
            node.value = self._overridden(node.target.id, node.value)
        return node

    def _overridden(self, name: str, value: ast.expr) -> ast.expr:
        if name not in self.overrides:
            return value
        return ast.copy_location(ast.Name(_slot(name), ast.Load()), value)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id == "dict"):
            return node
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return node
        parts: list[ast.expr] = list(node.args)
        parts += [keyword.value for keyword in node.keywords if keyword.arg is None]
        named = [keyword for keyword in node.keywords if keyword.arg is not None]
        keys: list[ast.expr] = [ast.Constant(k.arg) for k in named]
        lines = [k.value.lineno if k.value.lineno < k.lineno else k.lineno for k in named]
        return self._call(node, parts, keys, [k.value for k in named], lines)

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        self.generic_visit(node)
        if any(key is not None and not _is_text(key) for key in node.keys):
            return node
        parts = [value for key, value in zip(node.keys, node.values, strict=True) if key is None]
        named = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]
        keys: list[ast.expr] = [key for key, _ in named]
        return self._call(node, parts, keys, [value for _, value in named], [key.lineno for key, _ in named])

    def _call(
        self, node: ast.expr, parts: list[ast.expr], keys: list[ast.expr], values: list[ast.expr], lines: list[int]
    ) -> ast.expr:
        places = ast.Dict(list(keys), [ast.Constant(line) for line in lines])
        named = ast.Dict(list(keys), values)
        arguments = [places, ast.Constant(self.file), ast.Tuple(parts, ast.Load()), named]
        return ast.copy_location(ast.Call(ast.Name(_CALL, ast.Load()), arguments, []), node)


def _is_text(key: ast.expr) -> bool:
    return isinstance(key, ast.Constant) and isinstance(key.value, str)
