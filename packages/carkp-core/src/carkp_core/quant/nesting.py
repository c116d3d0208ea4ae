"""How a network nests its outputs: a tensor, or tensors in tuples, lists and mappings.

Before::  {"points": [conv1, conv2], "stride": 4}            names, as a graph's output has them
After::   {"points": [Tensor, Tensor], "stride": 4}          the tensors of these names in their places
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen
from torch import Tensor, fx


@frozen
class _Name:
    """A tensor's name in its place."""

    text: str


@frozen(eq=False)
class Nesting:
    """The places of outputs."""

    _structure: Any

    @classmethod
    def of(cls, output: fx.Node) -> Nesting:
        """The nesting of a graph's ``output`` node, with the labels of the nodes in it."""
        return cls(fx.node.map_aggregate(output.args[0], _named))

    @property
    def places(self) -> tuple[str, ...]:
        """The name at each place of a tensor, in order; one tensor may stand at several."""
        return tuple(_names(self._structure))

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs' names, each once, in order."""
        return tuple(dict.fromkeys(self.places))

    def filled(self, values: Mapping[str, Tensor]) -> Any:
        """The tensors in their places; what is no tensor stays as it is."""
        return _filled(self._structure, values)

    def to_json(self) -> Any:
        """Plain values: a name, null for what is no tensor, or ``{"tuple" | "list" | "dict": items}``."""
        return _plain(self._structure)


def _named(value: Any) -> Any:
    return _Name(value.meta["label"]) if isinstance(value, fx.Node) else value


def _filled(structure: Any, values: Mapping[str, Tensor]) -> Any:
    if isinstance(structure, _Name):
        return values[structure.text]
    if isinstance(structure, Mapping):
        return {key: _filled(item, values) for key, item in structure.items()}
    if isinstance(structure, (list, tuple)):
        made = [_filled(item, values) for item in structure]
        return made if isinstance(structure, list) else tuple(made)
    return structure


def _names(structure: Any) -> Iterator[str]:
    if isinstance(structure, _Name):
        yield structure.text
    elif isinstance(structure, Mapping):
        for item in structure.values():
            yield from _names(item)
    elif isinstance(structure, (list, tuple)):
        for item in structure:
            yield from _names(item)


def _plain(structure: Any) -> Any:
    if isinstance(structure, _Name):
        return structure.text
    if isinstance(structure, Mapping):
        return {"dict": {key: _plain(item) for key, item in structure.items()}}
    if isinstance(structure, (list, tuple)):
        return {"list" if isinstance(structure, list) else "tuple": [_plain(item) for item in structure]}
    return None
