"""Dicts that know where each of their keys was written."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Mapping
from typing import Any

from attrs import frozen

_identities = itertools.count()


@frozen
class Origin:
    """Where a value was written: a file and line, or an override on the command line (line 0)."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class LocatedDict(dict[str, Any]):
    """A dict that keeps an origin for every key, also through copies.

    ``lineage`` is shared by a dict and its copies, so that an override of one reaches the others where they
    still hold the value they were copied with.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.origins: dict[str, Origin] = {}
        self.lineage = next(_identities)
        for source in args:
            if isinstance(source, LocatedDict):
                self.origins.update(source.origins)
                self.lineage = source.lineage

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        frame = sys._getframe(1)
        self.origins[key] = Origin(frame.f_code.co_filename, frame.f_lineno)

    def put(self, key: str, value: Any, origin: Origin) -> None:
        """Set a key and say where it came from."""
        super().__setitem__(key, value)
        self.origins[key] = origin

    def copy(self) -> LocatedDict:
        return LocatedDict(self)

    def __copy__(self) -> LocatedDict:
        return LocatedDict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> LocatedDict:
        made = LocatedDict()
        memo[id(self)] = made
        for key, value in self.items():
            dict.__setitem__(made, key, copy.deepcopy(value, memo))
        made.origins = dict(self.origins)
        made.lineage = self.lineage
        return made

    def __or__(self, other: Any) -> LocatedDict:  # type: ignore[override]
        made = LocatedDict(self)
        made.update(other)
        if isinstance(other, LocatedDict):
            made.origins.update(other.origins)
        return made

    def origin(self, key: str) -> Origin | None:
        """Where the key was written, if that is known."""
        return self.origins.get(key)


def located_call(places: Mapping[str, int], file: str, parts: tuple[Any, ...], named: dict[str, Any]) -> LocatedDict:
    """What ``dict(*parts, **named)`` becomes in a config: each part a mapping, each name with its line."""
    made = LocatedDict(*parts[:1])
    for part in parts[1:]:
        made = made | part
    for key, value in named.items():
        dict.__setitem__(made, key, value)
        if key in places:
            made.origins[key] = Origin(file, places[key])
    return made
