"""A task model that is given its network's answers, so that the metrics of any variant can be counted.

The deployable part of the model is replaced by a stand-in that returns what it is told to; loss, post-process and batch
processor stay what they are.

Legend: ``N`` images of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from carkp_core.quant.converters import replaced
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.sensitivity.measurement import State
from carkp_core.quant_report.source import Source


class StandIn(nn.Module):
    """In the place of a network: remembers what it is called with and returns what it is given."""

    def __init__(self, network: QuantizedNetwork) -> None:
        super().__init__()
        self.network = network
        self.images: tuple[Tensor, ...] = ()
        self.answer: Any = None

    def forward(self, *images: Tensor) -> Any:
        """The given answer; without one, the float network's."""
        self.images = images
        if self.answer is not None:
            return self.answer
        return self.network.nested(self.network.float_values(images))


class Trial:
    """One batch after the other through the task model.

    Parameters
    ----------
    source:
        Its model gets a stand-in for its network.
    """

    def __init__(self, source: Source) -> None:
        self._stand_in = StandIn(source.network)
        self._model = replaced(source.model, self._stand_in).eval()
        self._processor = source.processor
        self._metrics = [copy.deepcopy(metric) for metric in source.metrics]
        self._random = source.data is None
        self._raw: Any = None

    def images(self, raw: Any) -> tuple[Tensor, ...]:
        """What the network is called with, [N, ...] each, when the model is evaluated on a batch."""
        if self._random:
            return tuple(raw)
        self._raw, self._stand_in.answer = raw, None
        self._processor.evaluate(self._model, raw)
        return tuple(image.detach() for image in self._stand_in.images)

    def score(self, outputs: Any) -> list[State]:
        """The metrics' states of that batch when the network answers with ``outputs``."""
        if not self._metrics:
            return []
        self._stand_in.answer = outputs
        batch, answer = self._processor.evaluate(self._model, self._raw)
        states: list[State] = []
        for metric in self._metrics:
            metric.reset()
            metric.update(batch, answer)
            states.append({key: value.cpu().numpy().copy() for key, value in metric.state().items()})
        return states

    def compute(self, states: Sequence[State]) -> dict[str, float]:
        """The metrics' values of summed states; of two that name a value alike, the first counts."""
        values: dict[str, float] = {}
        for metric, state in zip(self._metrics, states, strict=True):
            metric.load_state({key: torch.as_tensor(np.asarray(value)) for key, value in state.items()})
            for key, value in metric.compute().items():
                values.setdefault(key, float(value))
        return values
