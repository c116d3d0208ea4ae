"""Pools of threads that share the machine with torch instead of multiplying its threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def single_threaded_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Threads in each of which torch computes with one thread; elsewhere it keeps as many as it has."""
    pool = ThreadPoolExecutor(threads, name, initializer=_use_one_thread)
    # torch takes the number that was set last for threads to come: only these should have it.
    before = torch.get_num_threads()
    started = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(before)
    return pool


def _use_one_thread() -> None:
    torch.get_num_threads()  # a thread's first question takes over the number of all, so it must come before
    torch.set_num_threads(1)
