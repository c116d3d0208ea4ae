"""What a config asks of a loader, made fit for the machine: workers, threads, pinned and shared memory."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from torch import Tensor

from carkp_core.train.distributed import World
from carkp_core.train.seeding import seeded

if TYPE_CHECKING:
    from carkp_core.train.loaders import LoaderPlan

Say = Callable[[str], None]

#: Batches that a worker, or the thread that stands in for one, keeps ready; torch's default.
PREFETCH = 2
#: As many cores as one thread loads for, beside a model that computes in threads.
_FEW_CORES = 4
_SHARED_MEMORY = Path("/dev/shm")


def own_randomness(dataset: Any) -> bool:
    """Whether a data set derives its samples' randomness itself: it has ``replay`` or ``set_epoch``."""
    return hasattr(dataset, "replay") or hasattr(dataset, "set_epoch")


def fitted(plan: LoaderPlan, world: World, say: Say, threads: int | None = None) -> LoaderPlan:
    """Return the plan with workers and pinned memory as this machine can bear, saying what was changed in one line.

    There are at most ``threads`` workers, if the user gave that number.
    """
    cpus = _cpus()
    workers, reason = min(plan.num_workers, max(1, cpus // world.size)), f"{cpus} CPUs"
    if threads is not None and threads < workers:
        workers, reason = threads, f"--threads {threads}"
    if workers and _sample_bytes_needed(plan, workers) > _free_shared_bytes():
        workers, reason = 0, f"{_free_shared_bytes() >> 20} MiB of shared memory"
    changes = []
    if workers < plan.num_workers:
        changes.append(f"num_workers {plan.num_workers} -> {workers} ({reason})")
    pin = plan.pin_memory and torch.cuda.is_available()
    if pin != plan.pin_memory:
        changes.append("pin_memory off (no GPU)")
    if changes:
        say("data loaders: " + ", ".join(changes))
    passed_on = plan.passed_on if workers else {}
    return attrs.evolve(plan, num_workers=workers, pin_memory=pin, passed_on=passed_on)


def threaded(plan: LoaderPlan, world: World, say: Say, threads: int | None = None) -> LoaderPlan:
    """Return the plan without worker processes where a thread does better: few cores, which the model needs too.

    What processes send through shared memory costs as much again as loading it.
    """
    cores = min(_cpus() // world.size, threads or sys.maxsize)
    if plan.num_workers == 0 or cores > _FEW_CORES or not own_randomness(plan.dataset):
        return plan
    say(
        f"data loaders: a thread in place of {plan.num_workers} workers (it shares {max(cores, 1)} CPUs with the model)"
    )
    return attrs.evolve(plan, num_workers=0)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_shared_bytes() -> int:
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else sys.maxsize


def _sample_bytes_needed(plan: LoaderPlan, workers: int) -> int:
    """Shared memory that the workers' ready batches fill, with one batch more in the main process."""
    if len(plan.dataset) == 0:
        return 0
    prefetch = int(plan.passed_on.get("prefetch_factor", PREFETCH))
    with seeded(0):
        return _tensor_bytes(plan.dataset[0]) * plan.batch_size * (workers * prefetch + 1)


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_tensor_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_tensor_bytes(item) for item in value)
    return int(value.nbytes) if isinstance(value, (Tensor, np.ndarray)) else 0
