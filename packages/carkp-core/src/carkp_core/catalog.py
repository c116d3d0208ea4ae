"""The catalog of components: named parts that configs ask for, loaded when they are built."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from carkp_core.errors import ConfigError, PluginError
from carkp_core.siblings import installation_of

#: What a component may be. A config's ``type`` names no kind, so names are unique across kinds.
KINDS = (
    "backbone",
    "head",
    "model",
    "loss",
    "post_process",
    "dataset",
    "transform",
    "sampler",
    "collate",
    "metric",
    "callback",
    "trainer",
    "converter",
    "observer",
    "repair",
    "batch_processor",
    "loss_collector",
    "optimizer",
    "schedule",
)


def load_object(path: str) -> Any:
    """Import ``package.module:attribute`` (or ``package.module.attribute``) and return the attribute."""
    module_name, separator, attribute = path.partition(":")
    if not separator:
        module_name, _, attribute = path.rpartition(".")
    target = importlib.import_module(module_name)
    for name in attribute.split("."):
        target = getattr(target, name)
    return target


@frozen
class Component:
    """A named part: ``load`` is ``"package.module:attribute"``, imported only when the part is built."""

    kind: str = field()
    name: str
    load: str
    #: The distribution that offers it; the plugin manager fills it in.
    provider: str = ""

    @kind.validator
    def _check_kind(self, _attribute: object, value: str) -> None:
        if value not in KINDS:
            raise PluginError(f"component {self.name!r} has an unknown kind", seen=value, allowed=", ".join(KINDS))

    def resolve(self) -> Callable[..., Any]:
        """Import and return the callable behind the name."""
        try:
            target = load_object(self.load)
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"component {self.name!r} of {self.provider or 'an unknown plugin'} cannot be loaded",
                seen=f"{self.load}: {error}",
                remedy="reinstall or update the package that offers it",
            ) from error
        return target  # type: ignore[no-any-return]


class Catalog(Mapping[str, Component]):
    """Components by name. A name that two plugins offer is an error only when it is looked up."""

    def __init__(self, components: Iterable[Component]) -> None:
        self._found: dict[str, list[Component]] = {}
        for component in components:
            self._found.setdefault(component.name, []).append(component)

    def __getitem__(self, name: str) -> Component:
        found = self._found[name]
        if len(found) > 1:
            raise PluginError(
                f"component {name!r} is offered more than once",
                seen=", ".join(f"{c.provider} ({c.load})" for c in found),
                allowed="one component to a name, across all kinds",
                remedy="uninstall one of the packages, or give `type` the import path instead of the name",
            )
        return found[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def clashes(self) -> dict[str, tuple[Component, ...]]:
        """Names offered more than once."""
        return {name: tuple(found) for name, found in self._found.items() if len(found) > 1}

    def of_kind(self, kind: str) -> tuple[Component, ...]:
        """All components of a kind, by name."""
        every = (c for found in self._found.values() for c in found)
        return tuple(sorted((c for c in every if c.kind == kind), key=lambda c: c.name))

    def resolve(self, target: str | Callable[..., Any], where: str | None = None) -> Callable[..., Any]:
        """Turn a config's ``type`` (name, import path or callable) into the callable it means."""
        if not isinstance(target, str):
            return target
        if target in self:
            return self[target].resolve()
        if "." in target or ":" in target:
            return _import_path(target, where)
        close = difflib.get_close_matches(target, self, n=1)
        raise ConfigError(
            f"unknown type {target!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            where=where,
            allowed="a registered name (see `carkp plugins --verbose`), an importable path, or a callable",
            remedy=installation_of(target) or None,
        )


def _import_path(path: str, where: str | None) -> Callable[..., Any]:
    try:
        return load_object(path)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"type {path!r} cannot be imported",
            where=where,
            seen=str(error),
            remedy="check the spelling and that the package is installed in this environment",
        ) from error
