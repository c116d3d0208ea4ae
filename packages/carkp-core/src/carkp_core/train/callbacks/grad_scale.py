"""The callback that scales and clips gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.state import Training


class GradScale(Callback):
    """Scale the gradients of some modules, then clip the norm of all.

    Parameters
    ----------
    module_and_scale:
        Pairs of a module's name and a factor: ``[("backbone", 0.1)]``. A name is a module's whole path, or its
        last parts.
    clip_grad_norm, clip_norm_type:
        Where the norm of all gradients together is larger, they are scaled down to it. The type is the norm's order.
    """

    def __init__(
        self,
        module_and_scale: Sequence[tuple[str, float]] = (),
        clip_grad_norm: float | None = None,
        clip_norm_type: float = 2,
    ) -> None:
        if clip_grad_norm is not None and not clip_grad_norm > 0:
            raise ConfigError("GradScale: clip_grad_norm is not positive", seen=str(clip_grad_norm))
        self.module_and_scale = [(entry[0], float(entry[1])) for entry in module_and_scale]
        self.clip_grad_norm = clip_grad_norm
        self.clip_norm_type = float(clip_norm_type)
        self._scaled: list[tuple[list[nn.Parameter], float]] = []

    def on_train_begin(self, training: Training) -> None:
        """Find the modules."""
        self._scaled = [(_parameters_of(training.model, name), scale) for name, scale in self.module_and_scale]

    def on_gradients(self, training: Training) -> None:
        """Scale, then clip."""
        for parameters, scale in self._scaled:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        if self.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(training.model.parameters(), self.clip_grad_norm, self.clip_norm_type)


def _parameters_of(model: nn.Module, name: str) -> list[nn.Parameter]:
    roots = [m for path, m in model.named_modules() if path == name or path.endswith(f".{name}")]
    found = {id(p): p for root in roots for p in root.parameters()}
    if not found:
        raise ConfigError(
            f"GradScale: the model has no module {name!r} with parameters",
            allowed=", ".join(path for path, _ in model.named_modules() if path and path.count(".") < 2),
        )
    return list(found.values())
