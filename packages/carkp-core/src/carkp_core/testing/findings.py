"""What a check found, and the error that tells all of it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import field, frozen

from carkp_core.errors import CarkpError


@frozen
class Finding:
    """Something wrong with a part: what was seen, why it matters, and what to do."""

    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n    why: {self.why}\n    do:  {self.remedy}"


class CheckFailed(AssertionError):
    """A check's findings, as a test's failure."""

    def __init__(self, subject: str, findings: tuple[Finding, ...]) -> None:
        lines = "\n".join(f"  {number}. {finding}" for number, finding in enumerate(findings, 1))
        super().__init__(f"{subject}: {len(findings)} finding(s)\n{lines}")
        self.findings = findings


@frozen(eq=False)
class Findings:
    """Collects the findings of one check."""

    subject: str
    found: list[Finding] = field(factory=list)

    def add(self, what: str, why: str, remedy: str) -> None:
        """Note a finding."""
        self.found.append(Finding(what, why, remedy))

    def expect(self, holds: bool, what: str, why: str, remedy: str) -> bool:
        """Note a finding unless something holds; returns whether it does."""
        if not holds:
            self.add(what, why, remedy)
        return holds

    @contextmanager
    def step(self, doing: str, why: str, remedy: str) -> Iterator[None]:
        """Turn what a step raises into a finding. What follows the block runs all the same."""
        try:
            yield
        except CheckFailed:
            raise
        except CarkpError as error:
            self.add(f"{doing}: {error.where + ': ' if error.where else ''}{error.message}" + _details(error), why,
                     error.remedy or remedy)  # fmt: skip
        except Exception as error:  # an author's code may raise anything: that is what the check is for
            self.add(f"{doing} raises {type(error).__name__}: {error}{_line(error)}", why, remedy)

    def raise_if_any(self) -> None:
        """Raise CheckFailed when something was found."""
        if self.found:
            raise CheckFailed(self.subject, tuple(self.found))


def _line(error: BaseException) -> str:
    """The author's line that an error came through last: not the check's own, nor one of an installed library."""
    here = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and path.parent != here and "site-packages" not in path.parts:
            return f" (at {path}:{frame.lineno})"
    return ""


def _details(error: CarkpError) -> str:
    parts = [f"{label} {text}" for label, text in (("seen", error.seen), ("allowed", error.allowed)) if text]
    return f" ({'; '.join(parts)})" if parts else ""
