"""``CARKP_TRACE=1``: one line on standard error for each hook call and each plugin's answer."""

from __future__ import annotations

import itertools
import reprlib
import sys
from collections.abc import Mapping, Sized
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class HookTrace:
    """Prints what it is told; numbers the calls, so that an answer is found again below nested calls."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: list[int] = []

    def before(self, hook: str, implementations: Any, arguments: Mapping[str, Any]) -> None:
        """A hook is called through pluggy."""
        self._open.append(next(self._numbers))
        given = ", ".join(f"{name}={_SHORT.repr(value)}" for name, value in arguments.items())
        asked = ", ".join(impl.plugin_name for impl in reversed(implementations)) or "nobody"
        self._print(f"{self._open[-1]} {hook}({given}) asks {asked}")

    def after(self, outcome: Any, hook: str, implementations: Any, arguments: Mapping[str, Any]) -> None:
        """It has answered, or raised."""
        answer = f"raised {outcome.exception!r}" if outcome.exception else f"-> {_SHORT.repr(outcome.get_result())}"
        self._print(f"{self._open.pop()} {hook} {answer}")

    def answered(self, hook: str, plugin: str, provider: str, answer: Any) -> None:
        """One plugin's answer to a hook that only names things."""
        found = f"{len(answer)} record(s)" if isinstance(answer, Sized) else _SHORT.repr(answer)
        self._print(f"{next(self._numbers)} {hook} of {plugin} ({provider}) -> {found}")

    @staticmethod
    def _print(line: str) -> None:
        print(f"carkp trace: {line}", file=sys.stderr)  # noqa: T201 - printing is what it is for
