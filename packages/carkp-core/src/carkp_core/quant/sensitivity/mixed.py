"""A calibrated network of which each layer runs in float or in integers, whichever is asked for.

A tensor is a float ``Tensor`` or a ``QTensor``. A layer in float takes floats (integers times their scale) and gives
floats. A layer in integers gives integers: exactly those of the integer model while all its inputs are integers; after
a float it computes in float with its integer weights and rounds the result. So the network with every layer in integers
is the deployed one bit for bit, and a layer that is taken out of it changes nothing before it.

Legend: ``N`` images of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, Sequence

import torch
from attrs import frozen
from torch import Tensor, nn

from carkp_core.quant import exact
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import Layer, float_input
from carkp_core.quant.network import QuantizedNetwork, Step
from carkp_core.quant.ops.weighted import Weighted

Value = Tensor | QTensor


@frozen
class Steps:
    """One step's value and the integer type of a tensor."""

    scale: float
    dtype: str


class MixedNetwork:
    """Runs parts of a calibrated network.

    Parameters
    ----------
    network:
        In evaluation mode, calibrated. It is not changed.

    Raises
    ------
    QuantizationError
        When a layer has no scale.
    """

    def __init__(self, network: QuantizedNetwork) -> None:
        self.network = network
        self.steps = network.steps
        #: Scale and type of every tensor, as the integer model has them (a wanted scale may have been raised).
        self.kinds = _kinds(network)
        self._twins = {step.name: self._twin(step) for step in self.steps}

    def layer(self, step: Step) -> Layer:
        """The layer of a step."""
        return self.network.layers[step.key]  # type: ignore[return-value]

    def rounds(self, step: Step) -> bool:
        """Whether the layer rounds anything of its own: its result, or a constant. Moves and selections do not."""
        return self.layer(step).own_scale or not step.inputs

    def has_weights(self, step: Step) -> bool:
        """Whether the layer has weights to round."""
        return isinstance(self.layer(step), Weighted)

    def in_float(self, step: Step, values: Mapping[str, Value]) -> Tensor:
        """The layer in float."""
        return self.layer(step).float_forward(*(as_float(values[name]) for name in step.inputs))

    def with_integer_weights(self, step: Step, values: Mapping[str, Value]) -> Tensor:
        """The layer in float with the values that its integer weights and bias stand for; nothing else is rounded."""
        return self._twins[step.name].float_forward(*(as_float(values[name]) for name in step.inputs))

    def in_integers(self, step: Step, values: Mapping[str, Value]) -> Value:
        """The layer in integers; a float again if it only moves floats."""
        inputs = [values[name] for name in step.inputs]
        layer = self.layer(step)
        if all(isinstance(x, QTensor) for x in inputs):
            return layer.integer_forward(*inputs)  # type: ignore[arg-type]
        result = self.with_integer_weights(step, values)
        return self.rounded(step.name, result) if layer.own_scale else result

    def rounded(self, name: str, result: Tensor) -> QTensor:
        """A layer's float result, rounded and clamped as its output is."""
        kind = self.kinds[name]
        lo, hi = self.network.layer(name).bounds.limits(kind.scale, kind.dtype)
        return QTensor(exact.quantize(result, kind.scale, lo, hi), kind.scale, kind.dtype)

    def finish(self, start: int, values: MutableMapping[str, Value], integers: bool) -> dict[str, Tensor]:
        """Run the steps from ``start`` on; ``values`` are changed and hold what is still to be read.

        Returns
        -------
        The network's outputs as floats, by name.
        """
        run = self.in_integers if integers else self.in_float
        for index in range(start, len(self.steps)):
            step = self.steps[index]
            values[step.name] = run(step, values)
            self.free(index, values)
        return {name: as_float(values[name]) for name in self.network.output_names}

    def free(self, index: int, values: MutableMapping[str, Value]) -> None:
        """Drop the tensors that nobody reads after a step."""
        for name in self.network.freed[index]:
            values.pop(name, None)

    def inputs(self, images: Sequence[Tensor]) -> tuple[dict[str, Value], dict[str, Value]]:
        """The network's inputs by name, in float and in integers."""
        named = dict(zip(self.network.inputs, images, strict=True))
        return dict(named), {name: self.rounded(name, image) for name, image in named.items()}

    def _twin(self, step: Step) -> Layer:
        """The layer itself, or a copy whose float weights and bias are those of its integers."""
        layer = self.layer(step)
        if not isinstance(layer, Weighted):
            return layer
        x, *residual = (self.kinds[name] for name in step.inputs)
        constants = layer.integers(x.scale, x.dtype, residual[0].scale if residual else None)
        twin = copy.deepcopy(layer)
        rows = constants.weight.double() * constants.scale_w[:, None]
        twin.weight = nn.Parameter(layer.unrows(rows.float()).contiguous(), requires_grad=False)
        twin.bias = nn.Parameter((constants.bias * constants.scale_acc).float(), requires_grad=False)
        twin.bn = None
        return twin


def as_float(value: Value) -> Tensor:
    """A tensor's values: integers times their scale."""
    return float_input(value) if isinstance(value, QTensor) else value


def _kinds(network: QuantizedNetwork) -> dict[str, Steps]:
    device = next((b.device for b in network.buffers()), torch.device("cpu"))
    blank = [torch.zeros(shape, device=device) for shape in network.input_shapes.values()]
    names = [*network.inputs, *(step.name for step in network.steps)]
    with torch.no_grad():
        tensors = network.integer_values(blank, names)
    return {name: Steps(tensor.scale, tensor.dtype) for name, tensor in tensors.items()}
