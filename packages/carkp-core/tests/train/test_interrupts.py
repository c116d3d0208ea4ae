from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from carkp_core.train.interrupts import StoppedError, watched_signals

SECOND_SIGNAL = """
import os, signal, time
from carkp_core.train import interrupts
with interrupts.watched_signals() as interrupt:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)   # the same Ctrl-C, delivered twice
    time.sleep(interrupts.SAME_SIGNAL_S + 0.1)
    assert interrupt.signum == signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)   # the user means it
    time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_is_remembered(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with watched_signals() as interrupt:
        assert interrupt.signum is None
        os.kill(os.getpid(), number)
        assert interrupt.signum == number
    assert signal.getsignal(number) is before
    assert "stopping after this step" in capfd.readouterr().err


def test_a_second_signal_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", SECOND_SIGNAL], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGINT, done.stderr


def test_outside_the_main_thread_nothing_is_watched() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with watched_signals() as interrupt:
            seen.append(interrupt.signum)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
    assert signal.getsignal(signal.SIGINT) is before


def test_exit_statuses() -> None:
    assert StoppedError(signal.SIGINT).exit_status == 130
    assert StoppedError(signal.SIGTERM).exit_status == 143
