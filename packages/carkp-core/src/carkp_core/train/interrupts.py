"""Ctrl-C and SIGTERM: the first asks the run to stop after the present step, a later one ends the process.

A stopped run raises ``StoppedError`` when its last checkpoint is written. Exit status: 130 for Ctrl-C, 143 for SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: A launcher and the terminal may both deliver one Ctrl-C: what follows within this time counts as the same.
SAME_SIGNAL_S = 1.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(KeyboardInterrupt):
    """The run was asked to stop and has stopped in good order.

    Parameters
    ----------
    signum:
        The signal, ``signal.SIGINT`` or ``signal.SIGTERM``.
    message:
        Where it stopped and how to go on.
    """

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.signum = signum
        self.message = message

    @property
    def exit_status(self) -> int:
        """128 plus the signal: 130 or 143."""
        return 128 + self.signum


class Interrupt:
    """Remembers the signal that asked the run to stop."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._asked_s = 0.0

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """Take note of a first signal; let a later one end the process."""
        now = time.monotonic()
        if self.signum is None:
            self.signum, self._asked_s = signum, now
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping after this step; once more to quit without saving\n")
        elif now - self._asked_s >= SAME_SIGNAL_S:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)


@contextmanager
def watched_signals() -> Iterator[Interrupt]:
    """Watch for Ctrl-C and SIGTERM inside the block; outside the main thread nothing is watched."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before: dict[signal.Signals, Any] = {number: signal.signal(number, interrupt.handle) for number in _SIGNALS}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
