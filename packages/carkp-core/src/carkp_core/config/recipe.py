"""Recipes: config dicts with ``type`` that are checked and can be built, now or later.

A callable that wants an argument unbuilt says so::

    @deferred(optimizer=("params",), data_loader=())
    def trainer(model, optimizer, data_loader): ...

``optimizer`` then arrives as a ``Recipe``; the names in the tuple are what the owner will inject when it builds it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
from attrs import frozen

from carkp_core.config.located import LocatedDict
from carkp_core.context import Context
from carkp_core.errors import CarkpError, ConfigError

T = TypeVar("T")

_DEFERRED = "__carkp_deferred__"

#: Foreign callables whose children get arguments from their owner, by qualified name.
_FOREIGN: dict[str, dict[str, tuple[str, ...]]] = {
    "torch.utils.data.dataloader.DataLoader": {
        "sampler": ("dataset",),
        "batch_sampler": ("dataset",),
        "dataset": (),
        "collate_fn": (),
    },
}


def deferred(**injections: tuple[str, ...]) -> Callable[[T], T]:
    """Mark arguments of a callable that arrive as recipes, with what will be injected into each."""

    def mark(target: T) -> T:
        setattr(target, _DEFERRED, injections)
        return target

    return mark


def deferred_arguments(target: Callable[..., Any]) -> Mapping[str, tuple[str, ...]]:
    """The deferred arguments of a callable and the names injected into each."""
    qualified = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    return getattr(target, _DEFERRED, None) or _FOREIGN.get(qualified, {})


@frozen(eq=False)
class Recipe:
    """A config dict that can be built."""

    node: dict[str, Any]
    path: str
    context: Context
    type: Callable[..., Any]

    @classmethod
    def of(cls, node: dict[str, Any], path: str, context: Context) -> Recipe:
        """Resolve a node's ``type``."""
        return cls(node, path, context, context.catalog.resolve(node["type"], where(node, "type", path)))

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments as written, without ``type``; a shallow copy."""
        return {key: value for key, value in self.node.items() if key != "type"}

    def child(self, key: str) -> Recipe | None:
        """The recipe of an argument, or None when it is absent or None."""
        node = self.node.get(key)
        if node is None:
            return None
        return Recipe.of(node, f"{self.path}.{key}", self.context)

    def replace(self, **changes: Any) -> Recipe:
        """The same recipe with other arguments (raw config values)."""
        node = LocatedDict(self.node)
        for key, value in changes.items():
            node.put(key, value, self.node.origins.get(key) if isinstance(self.node, LocatedDict) else None)  # type: ignore[arg-type]
        return attrs.evolve(self, node=node)

    def without(self, *keys: str) -> Recipe:
        """The same recipe without some arguments."""
        node = LocatedDict(self.node)
        for key in keys:
            node.pop(key, None)
        return attrs.evolve(self, node=node)

    def build(self, **injected: Any) -> Any:
        """Build the arguments, then the thing itself. Injected arguments win over the config's."""
        lazy = deferred_arguments(self.type)
        arguments: dict[str, Any] = {}
        for key, value in self.kwargs.items():
            if key in injected:
                continue
            path = f"{self.path}.{key}"
            arguments[key] = (
                _as_recipe(value, path, self.context) if key in lazy else build_value(value, path, self.context)
            )
        arguments.update(injected)
        if "context" not in arguments and "context" in _parameters(self.type):
            arguments["context"] = self.context
        return self._call(arguments)

    def _call(self, arguments: dict[str, Any]) -> Any:
        try:
            return self.type(**arguments)
        except CarkpError as error:
            if error.where is None:
                error.where = where(self.node, "type", self.path)
            raise
        except (TypeError, ValueError) as error:
            if not _raised_by_arguments(error) and not _names_one(error, arguments):
                raise
            name = getattr(self.type, "__name__", str(self.type))
            raise ConfigError(
                f"{name} refused its arguments: {error}", where=where(self.node, "type", self.path)
            ) from error


def _raised_by_arguments(error: BaseException) -> bool:
    """True when the error came from the called object itself, not from deep inside it."""
    depth = 0
    trace = error.__traceback__
    while trace is not None:
        depth += 1
        trace = trace.tb_next
    return depth <= 3


def _names_one(error: BaseException, arguments: Mapping[str, Any]) -> bool:
    """True when a call deep inside did not know an argument that was passed on to it."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return isinstance(error, TypeError) and unknown is not None and unknown[1] in arguments


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}


def is_recipe(value: Any) -> bool:
    """True for a config dict that names a type."""
    return isinstance(value, dict) and "type" in value


def build_value(value: Any, path: str, context: Context) -> Any:
    """Build every recipe inside a config value, depth first; other values pass through."""
    if is_recipe(value):
        return Recipe.of(value, path, context).build()
    if isinstance(value, dict):
        return {key: build_value(item, f"{path}.{key}", context) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(build_value(item, f"{path}[{i}]", context) for i, item in enumerate(value))
    return value


def _as_recipe(value: Any, path: str, context: Context) -> Any:
    if is_recipe(value):
        return Recipe.of(value, path, context)
    if isinstance(value, (list, tuple)):
        return type(value)(_as_recipe(item, f"{path}[{i}]", context) for i, item in enumerate(value))
    return value


def where(node: dict[str, Any], key: str, path: str) -> str:
    """The key path with the file and line it was written at."""
    origin = node.origin(key) if isinstance(node, LocatedDict) else None
    return f"{path} ({origin})" if origin else path
