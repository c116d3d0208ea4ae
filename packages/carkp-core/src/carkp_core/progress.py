"""Progress of long work: a bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

#: Seconds between two plain lines where there is no terminal to draw a bar on.
PLAIN_INTERVAL_S = 10.0

Advance = Callable[..., None]


@contextmanager
def progress(description: str, total: int | None, console: Console | None = None) -> Iterator[Advance]:
    """Yield ``advance(steps=1, note="")``, which reports work as it is done, on standard error."""
    console = console or Console(stderr=True)
    reporter = _bar if console.is_terminal else _lines
    with reporter(description, total, console) as advance:
        yield advance


def track(
    items: Iterable[T], description: str, total: int | None = None, console: Console | None = None
) -> Iterator[T]:
    """Iterate over ``items`` while reporting progress."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total, console) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def _bar(description: str, total: int | None, console: Console) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.advance(task, steps)
            if note is not None:
                bar.update(task, note=note)

        yield advance


@contextmanager
def _lines(description: str, total: int | None, console: Console) -> Iterator[Advance]:
    started = last = time.monotonic()
    done = 0
    of = "" if total is None else f"/{total}"

    def advance(steps: int = 1, note: str | None = None) -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL_S:
            last = now
            suffix = f" {note}" if note else ""
            console.print(f"{description}: {done}{of} after {now - started:.0f} s{suffix}", highlight=False)

    yield advance
