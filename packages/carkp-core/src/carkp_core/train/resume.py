"""What a checkpoint says of a run in progress, and taking it up again.

A resumed run is bit-equal to one that was never stopped, given as many threads: weights, optimizer, position within
the epoch, the random generators of every process, and the accumulators of metrics and callbacks are all kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from carkp_core.errors import CheckpointError
from carkp_core.train.checkpoint import FORMAT, load_state, origin_of, read_checkpoint
from carkp_core.train.seeding import random_state, restore_random_state
from carkp_core.train.state import Training


def checkpoint_payload(training: Training, resumable: bool) -> dict[str, Any]:
    """Return a checkpoint's content; every process must call it, since each has random generators of its own.

    Parameters
    ----------
    resumable:
        Add what ``resume`` needs: about twice the weights for Adam.
    """
    context = training.environment.context
    payload = {
        "format": FORMAT,
        "stage": context.stage,
        "task": context.task,
        "march": context.march,
        "model": training.model.state_dict(),
        "epoch": training.epoch,
        "step": training.step,
        "metrics": dict(training.metrics),
        "sources": list(training.sources),
    }
    if resumable:
        payload["training"] = _progress(training)
    return payload


def _progress(training: Training) -> dict[str, Any]:
    assert training.optimizer is not None
    own = {
        "threads": torch.get_num_threads(),
        "random": random_state(),
        "metrics": [metric.state() for metric in training.train_metrics],
    }
    return {
        "optimizer": training.optimizer.state_dict(),
        "step_in_epoch": training.step_in_epoch,
        "steps_per_epoch": training.plan.steps_per_epoch,
        "seed": training.environment.context.seed,
        "processes": training.environment.world.gather(own),
        "callbacks": [[type(c).__name__, c.state_dict()] for c in training.callbacks],
        "validated_epoch": training.validated_epoch,
        "best_metrics": dict(training.best_metrics),
        "history": [dict(record) for record in training.history],
        "losses": [list(entry) for entry in training.losses],
    }


def resume(training: Training, path: Path, strict: bool = True) -> None:
    """Put a prepared run into the state that a checkpoint holds.

    Parameters
    ----------
    strict:
        The checkpoint's names must be exactly the model's.

    Raises
    ------
    CheckpointError
        The checkpoint is not one to resume from, or the config has changed too much since.
    """
    payload = read_checkpoint(path)
    progress = payload.get("training")
    if progress is None:
        raise CheckpointError(
            "the checkpoint cannot be resumed from",
            where=str(path),
            seen="weights alone",
            allowed="the `last` checkpoint of a stage that trains",
        )
    load_state(
        training.model,
        payload["model"],
        where=str(path),
        allow_miss=not strict,
        ignore_extra=not strict,
        origin=origin_of(payload),
    )
    _check_position(training, progress, path)
    _load_optimizer(training, progress, path)
    training.epoch, training.step = payload["epoch"], payload["step"]
    training.step_in_epoch = progress["step_in_epoch"]
    training.metrics = dict(payload["metrics"])
    training.validated_epoch = progress["validated_epoch"]
    training.best_metrics = dict(progress["best_metrics"])
    training.history = [dict(record) for record in progress["history"]]
    training.losses = [(int(step), loss, rate) for step, loss, rate in progress["losses"]]
    states = dict(progress["callbacks"])
    for callback in training.callbacks:
        if type(callback).__name__ in states:
            callback.load_state_dict(states[type(callback).__name__])
    _load_process(training, progress)


def _check_position(training: Training, progress: Mapping[str, Any], path: Path) -> None:
    """Between epochs much may change; within one, the batches must be the same."""
    if progress["step_in_epoch"] == 0:
        return
    now = {
        "steps in an epoch": (progress["steps_per_epoch"], training.plan.steps_per_epoch),
        "processes": (len(progress["processes"]), training.environment.world.size),
        "seed": (progress["seed"], training.environment.context.seed),
    }
    changed = [f"{name} {then}, now {is_now}" for name, (then, is_now) in now.items() if then != is_now]
    if changed:
        raise CheckpointError(
            "the run was stopped within an epoch whose batches are not the same any more",
            where=str(path),
            seen="; ".join(changed),
            remedy="resume with the batch size, data, seed and number of processes that it was stopped with",
        )


def _load_optimizer(training: Training, progress: Mapping[str, Any], path: Path) -> None:
    assert training.optimizer is not None
    try:
        training.optimizer.load_state_dict(progress["optimizer"])
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            "the optimizer's state does not fit",
            where=str(path),
            seen=str(error),
            remedy="resume with the optimizer and the model that the run was stopped with",
        ) from error


def _load_process(training: Training, progress: Mapping[str, Any]) -> None:
    world = training.environment.world
    if len(progress["processes"]) != world.size:
        training.environment.say(
            f"{len(progress['processes'])} processes before, {world.size} now: not bit-equal to an uninterrupted run"
        )
        return
    own = progress["processes"][world.rank]
    if own["threads"] != torch.get_num_threads():
        training.environment.say(
            f"{own['threads']} threads before, {torch.get_num_threads()} now: sums may differ in their last bits"
        )
    restore_random_state(own["random"])
    for metric, state in zip(training.train_metrics, own["metrics"], strict=False):
        metric.load_state(state)
