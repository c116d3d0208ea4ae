"""The processes that share a run: who they are, and the few things they tell each other.

``torchrun --nproc-per-node 2 -m carkp_core train ...`` starts the processes; here they join (gloo on CPUs, NCCL on
GPUs). One process is a world of size 1, in which every exchange is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from attrs import frozen
from torch import Tensor, nn

from carkp_core.errors import ConfigError


@frozen
class World:
    """This process's place among those that share the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of every process's tensor; shapes and types must agree."""
        if self.size == 1:
            return tensor
        device = _exchange_device()
        total = tensor.detach().to(device, copy=True)
        dist.all_reduce(total)
        return total.to(tensor.device)

    def any(self, flag: bool) -> bool:
        """Return True in every process if any says so."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag), dtype=torch.int64)).item())

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end; alone without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
        return
    if size == 1:
        yield World()
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()


def choose_device(device: Any, world: World) -> torch.device:
    """Turn a config's ``device`` into a torch device: None is this process's GPU if there is one, else the CPU."""
    if device is None:
        return torch.device("cuda", world.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if isinstance(device, (list, tuple)):
        if len(device) != 1:
            raise ConfigError(
                "device names several devices",
                seen=repr(device),
                allowed="None, or one device",
                remedy="leave device=None and start one process per device with torchrun --nproc-per-node",
            )
        device = device[0]
    try:
        chosen = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError("unknown device", seen=repr(device), allowed="None, 'cpu', 'cuda', 'cuda:0'") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no GPU is present", seen=str(chosen), remedy="leave device=None")
    return chosen


class Replica(nn.parallel.DistributedDataParallel):
    """torch's replicated model, whose commonest mistake gets a message that says what to do."""

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        try:
            return super().forward(*inputs, **kwargs)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if "Expected to have finished reduction" not in str(error):
                raise
            raise ConfigError(
                "some of the model's parameters took no part in the last step",
                allowed="every parameter has a gradient in every step, when processes share the run",
                remedy="set find_unused_parameters=True on the trainer, or freeze or remove those parameters",
            ) from error


def replicate(model: nn.Module, device: torch.device, world: World, find_unused: bool = False) -> nn.Module:
    """Wrap a model so that its gradients are averaged over the processes; the model itself in a world of one."""
    if world.size == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None
    return Replica(model, device_ids=ids, find_unused_parameters=find_unused)


def _exchange_device() -> torch.device:
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")


def is_main_process() -> bool:
    """Return whether this is the process that writes and speaks, by torchrun's environment; true without it."""
    return os.environ.get("RANK", "0") == "0"
