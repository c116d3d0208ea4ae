"""Run by torchrun in ``test_sync_bn``: a batch norm's gradients on two shares of a batch, written per rank."""

from __future__ import annotations

import sys

import torch
from torch import nn

from carkp_core.errors import ConfigError
from carkp_core.train.distributed import World, joined_world, replicate
from carkp_core.train.sync_bn import convert_sync_bn


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 6, 6, generator=generator) * 3 + 1, torch.randn(8, 2, 4, 4, generator=generator)


class HalfUsed(nn.Module):
    """Has a layer that no loss depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)  # type: ignore[no-any-return]


def two_steps(find_unused: bool, world: World) -> str:
    """Train a model with unused parameters for two steps; what went wrong, or nothing."""
    replica = replicate(HalfUsed(), torch.device("cpu"), world, find_unused)
    try:
        for _ in range(2):
            replica(torch.ones(1, 2)).sum().backward()
    except ConfigError as error:
        return str(error)
    return ""


def main(path: str) -> None:
    torch.set_num_threads(1)
    with joined_world() as world:
        device = torch.device("cpu")
        model = convert_sync_bn(make_model(), device)
        replica = replicate(model, device, world)
        x, target = (part[world.rank :: world.size] for part in make_batch())
        x = x.clone().requires_grad_()
        for _ in range(2):
            model.zero_grad()
            x.grad = None
            nn.functional.mse_loss(replica(x), target).backward()
        result = {"grads": [p.grad for p in model.parameters()], "x": x.grad, "state": model.state_dict()}
        result["unused"] = [two_steps(find_unused=True, world=world), two_steps(find_unused=False, world=world)]
        torch.save(result, f"{path}.{world.rank}")


if __name__ == "__main__":
    main(sys.argv[1])
