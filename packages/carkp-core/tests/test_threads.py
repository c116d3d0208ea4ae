"""Threads of a pool compute with one torch thread each, and nobody else's number changes."""

from __future__ import annotations

import threading

import pytest
import torch

from carkp_core.errors import CarkpError
from carkp_core.threads import single_threaded_pool


def test_torch_has_one_thread_there_and_as_many_as_before_here() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with single_threaded_pool(2, "carkp-test") as pool:
            both = threading.Barrier(2)

            def ask() -> tuple[str, int]:
                both.wait(10)
                return threading.current_thread().name, torch.get_num_threads()

            found = [future.result() for future in (pool.submit(ask), pool.submit(ask))]
            assert sorted(found) == [("carkp-test_0", 1), ("carkp-test_1", 1)]
            assert torch.get_num_threads() == 3
        other: list[int] = []
        thread = threading.Thread(target=lambda: other.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert other == [3]
    finally:
        torch.set_num_threads(before)


def test_threads_that_cannot_be_started_are_an_error_and_leave_none_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(CarkpError, match="4 threads cannot be started"):
        single_threaded_pool(4, "carkp-test")
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()
