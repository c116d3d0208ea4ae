"""The callback that freezes batch norm's statistics and the scales in the course of QAT."""

from __future__ import annotations

from torch import nn

from carkp_core.errors import ConfigError
from carkp_core.quant.learned_scale import learned_scales
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.state import Training


class FreezeQuantization(Callback):
    """Freeze what follows the data, so that the last steps train the weights for the integers that stay.

    What is frozen depends on the steps done alone, so a resumed run needs nothing of it.

    Parameters
    ----------
    bn_epoch, bn_step:
        Epochs (1.5 is the middle of the second) or steps after which batch norm trains with its running statistics,
        which no longer change. For the ``with_bn`` modes; ``fuse_bn`` has none left. None never.
    scale_epoch, scale_step:
        The same for the scales, whether learned or following the ranges.
    """

    def __init__(
        self,
        bn_epoch: float | None = None,
        scale_epoch: float | None = None,
        bn_step: int | None = None,
        scale_step: int | None = None,
    ) -> None:
        _check_place("bn", bn_epoch, bn_step)
        _check_place("scale", scale_epoch, scale_step)
        self.bn_epoch, self.bn_step = bn_epoch, bn_step
        self.scale_epoch, self.scale_step = scale_epoch, scale_step
        self._scales: list[nn.Parameter] = []

    def on_train_begin(self, training: Training) -> None:
        """Find the scales. A stage that trains nothing, such as int_infer derived from QAT, has none to freeze."""
        if training.plan.steps:
            _quantized(training)
        self._scales = learned_scales(training.model)

    def on_step_begin(self, training: Training) -> None:
        """Freeze what is due."""
        if _is_due(training, self.bn_epoch, self.bn_step):
            _quantized(training).freeze_batch_norm()
        if _is_due(training, self.scale_epoch, self.scale_step):
            _quantized(training).freeze_scales()

    def on_gradients(self, training: Training) -> None:
        """Drop the gradients of frozen scales: without one an optimizer leaves a parameter alone, momentum included."""
        if _is_due(training, self.scale_epoch, self.scale_step):
            for scale in self._scales:
                scale.grad = None


def _is_due(training: Training, epoch: float | None, step: int | None) -> bool:
    if epoch is not None:
        step = round(epoch * training.plan.steps_per_epoch)
    return step is not None and training.step >= step


def _quantized(training: Training) -> QuantizedNetwork:
    network = training.network
    if not isinstance(network, QuantizedNetwork):
        raise ConfigError(
            "FreezeQuantization is for training a quantized network",
            seen=type(network).__name__,
            remedy="put Float2QAT into the trainer's converters, or take the callback out",
        )
    return network


def _check_place(what: str, epoch: float | None, step: int | None) -> None:
    if epoch is not None and step is not None:
        raise ConfigError(
            f"FreezeQuantization has {what}_epoch and {what}_step", seen=f"{epoch}, {step}", allowed="one of them"
        )
    for name, value in ((f"{what}_epoch", epoch), (f"{what}_step", step)):
        if value is not None and value < 0:
            raise ConfigError(f"FreezeQuantization: {name} is negative", seen=str(value), allowed="0 or more")
