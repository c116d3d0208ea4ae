"""Threads of a pool compute with one torch thread each, and nobody else's number changes."""

from __future__ import annotations

import threading

import torch

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
