"""Scales that are parameters: finding them, and training them with any optimizer.

``quant.step_gradient`` has their gradients. Here is what an optimizer must know: that weight decay is not for them,
and that no step may make one negative or many times what it was.

The paper trains with SGD, whose steps are in proportion to the gradients, and LSQ scales those for the purpose. The
steps of Adam and its kin have the size of the learning rate, whatever they change: too much for a small scale, too
little for a large one. So there a step is taken as a relative change, ``s exp(step)``, as if log s were trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from carkp_core.quant.layer import Layer
from carkp_core.quant.ops.weighted import Weighted

#: No optimizer step makes a scale more than this many times larger or smaller.
MOST_PER_STEP = 1.25


def learned_scales(model: nn.Module) -> list[nn.Parameter]:
    """The scales of a model that are parameters, each once, in a fixed order."""
    found: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, Layer):
            own = module._parameters.get("scale")
            of_weights = module.weight_scale if isinstance(module, Weighted) else None
            found |= {id(p): p for p in (own, of_weights) if p is not None}
    return list(found.values())


def parameter_groups(model: nn.Module) -> list[Any]:
    """What to give an optimizer: the trained parameters; with learned scales, those in a second group without decay."""
    scales = [p for p in learned_scales(model) if p.requires_grad]
    chosen = {id(p) for p in scales}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return [{"params": others}, {"params": scales, "weight_decay": 0.0}] if scales else others


class ScaleGuard:
    """Bounds what an optimizer's steps do to scales. It keeps nothing between steps."""

    def __init__(self, scales: list[nn.Parameter]) -> None:
        self._scales = scales
        self._relative = False
        self._before: list[Tensor] = []

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Watch each step of an optimizer."""
        if self._scales:
            self._relative = not isinstance(optimizer, torch.optim.SGD)
            optimizer.register_step_pre_hook(self._remember)
            optimizer.register_step_post_hook(self._bound)

    def _remember(self, *_: Any) -> None:
        self._before = [scale.detach().clone() for scale in self._scales]

    @torch.no_grad()
    def _bound(self, *_: Any) -> None:
        for scale, before in zip(self._scales, self._before, strict=True):
            wanted = before * torch.exp(scale - before) if self._relative else scale
            scale.copy_(wanted.clamp(before / MOST_PER_STEP, before * MOST_PER_STEP))
        self._before = []
