"""Pools of threads that share the machine with torch instead of multiplying its threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from carkp_core.errors import CarkpError


def single_threaded_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Threads in each of which torch computes with one thread; elsewhere it keeps as many as it has."""
    pool = ThreadPoolExecutor(threads, name, initializer=_use_one_thread)
    # torch takes the number that was set last for threads to come: only these should have it.
    before = torch.get_num_threads()
    started = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(started.wait)
        started.wait()
    except BaseException as error:
        started.abort()  # threads that wait for the others would keep the process alive
        pool.shutdown(wait=False)
        if not isinstance(error, RuntimeError):
            raise
        raise CarkpError(f"{threads} threads cannot be started", seen=str(error), remedy="use fewer threads") from error
    finally:
        torch.set_num_threads(before)
    return pool


def _use_one_thread() -> None:
    torch.get_num_threads()  # a thread's first question takes over the number of all, so it must come before
    torch.set_num_threads(1)
