"""Work done ahead: an iterator that is run in a thread of its own, and calls that overlap with their results' use."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from carkp_core.threads import single_threaded_pool

T = TypeVar("T")
R = TypeVar("R")

#: Seconds after which a thread that waits for room looks whether it is still wanted.
_PATIENCE_S = 0.1


def ahead(items: Callable[[], Iterable[T]], count: int) -> Generator[T]:
    """Yield what ``items()`` yields, made by another thread, at most ``count`` of them in advance.

    An error of the iterable is raised where its item would have come. Closing the iterator ends the thread.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(count)
    unwanted = threading.Event()

    def put(last: bool, value: Any) -> bool:
        while not unwanted.is_set():
            try:
                ready.put((last, value), timeout=_PATIENCE_S)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items():
                if not put(False, item):
                    return
        except BaseException as error:
            put(True, error)
        else:
            put(True, None)

    thread = threading.Thread(target=make, name="carkp-ahead", daemon=True)
    thread.start()
    try:
        while True:
            last, value = ready.get()
            if not last:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        unwanted.set()
        thread.join()


def overlapping(function: Callable[[T], R], items: Iterable[T], count: int) -> Generator[R]:
    """Yield ``function(item)`` of each item in order, ``count`` calls at a time in threads of their own."""
    pending: deque[Future[R]] = deque()
    with single_threaded_pool(count, "carkp-overlap") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) == count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
