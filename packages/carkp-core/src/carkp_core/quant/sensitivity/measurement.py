"""What is measured of a batch: sums, so that batches add up, in any number of runs, to one result.

For a layer with float result y on the float network's tensors::

    from_weights   |z - y|^2       z: the layer with its integer weights, its result not rounded
    from_output    |Q(y) - y|^2    Q: rounding and clamping to the output's steps
    alone          |Q(z) - y|^2    the layer is the only one that is quantized
    accumulated    |q - y|^2       q: the same tensor of the network that is quantized throughout

``only`` is the network's answer when this layer alone is quantized, ``without`` when it alone is left in float.

Legend: ``N`` images of a batch, ``C`` channels on dimension 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

from carkp_core.errors import QuantizationError
from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.quant import exact
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import Layer
from carkp_core.quant.network import Step
from carkp_core.quant.sensitivity.histogram import Counts, Histogram, histogram_of
from carkp_core.quant.sensitivity.mixed import MixedNetwork, Value, as_float

#: A metric's state after one batch: arrays whose sum over batches is the state of their joint samples.
State = Mapping[str, npt.NDArray[Any]]
#: Makes the metrics' states from the network's outputs, nested as the network nests them.
Score = Callable[[Any], Sequence[State]]

#: The integer type's range in this many equal parts, of which the used ones are counted.
SLOTS = 256


@frozen(eq=False)
class Answer:
    """What the network answered: squared error of each output, and the state of each metric."""

    noise: tuple[float, ...]
    states: tuple[State, ...]

    def __add__(self, other: Answer) -> Answer:
        noise = tuple(a + b for a, b in zip(self.noise, other.noise, strict=True))
        pairs = zip(self.states, other.states, strict=True)
        return Answer(noise, tuple({key: a[key] + b[key] for key in a} for a, b in pairs))


@frozen(eq=False)
class LayerSums:
    """One layer's tensor. ``low``, ``high`` and ``channel_absmax`` are the float network's extremes."""

    elements: int
    low: float
    high: float
    signal: float
    from_weights: float
    from_output: float
    alone: float
    accumulated: float
    #: Elements whose rounded value lies outside the integer type.
    clipped: int
    #: [C]; empty where dimension 1 is no channel.
    channel_absmax: npt.NDArray[np.float64]
    histogram: Histogram
    #: [SLOTS]: how often each part of the integer type's range occurs in the deployed network.
    slots: Counts
    only: Answer
    without: Answer

    def __add__(self, other: LayerSums) -> LayerSums:
        return LayerSums(
            self.elements + other.elements,
            min(self.low, other.low),
            max(self.high, other.high),
            self.signal + other.signal,
            self.from_weights + other.from_weights,
            self.from_output + other.from_output,
            self.alone + other.alone,
            self.accumulated + other.accumulated,
            self.clipped + other.clipped,
            np.maximum(self.channel_absmax, other.channel_absmax),
            self.histogram + other.histogram,
            self.slots + other.slots,
            self.only + other.only,
            self.without + other.without,
        )


@frozen(eq=False)
class BatchSums:
    """A batch of ``samples`` images. ``signal`` is the sum of squares of each output of the float network."""

    samples: int
    signal: tuple[float, ...]
    in_float: Answer
    in_integers: Answer
    layers: Mapping[str, LayerSums]

    def __add__(self, other: BatchSums) -> BatchSums:
        return BatchSums(
            self.samples + other.samples,
            tuple(a + b for a, b in zip(self.signal, other.signal, strict=True)),
            self.in_float + other.in_float,
            self.in_integers + other.in_integers,
            {name: sums + other.layers[name] for name, sums in self.layers.items()},
        )


def measured_layers(network: MixedNetwork) -> list[str]:
    """The tensors that are rounded, in execution order: inputs, and layers with a scale of their own."""
    return [*network.network.inputs, *(step.name for step in network.steps if network.rounds(step))]


def measure(
    network: MixedNetwork,
    images: Sequence[Tensor],
    score: Score = lambda _: (),
    layers: Collection[str] | None = None,
    measured: Callable[[str], None] = lambda _: None,
) -> BatchSums:
    """Measure a batch.

    Memory holds the tensors that are still to be read, three times over; nothing grows with the number of layers.

    Parameters
    ----------
    images:
        The network's inputs, [N, ...] each.
    score:
        Counts an answer in the metrics.
    layers:
        Names of the tensors to look at; by default all of ``measured_layers``.
    measured:
        Called with each layer's name once it was measured; it may raise to stop.

    Raises
    ------
    QuantizationError
        When an input or a layer of the float network is NaN or infinite.
    """
    with torch.no_grad(), exact.exact_convolutions():
        return _Walk(network, images, score, set(measured_layers(network) if layers is None else layers), measured)()


class _Walk:
    """One pass through the layers, in float and in integers side by side."""

    def __init__(
        self,
        network: MixedNetwork,
        images: Sequence[Tensor],
        score: Score,
        wanted: Collection[str],
        measured: Callable[[str], None],
    ) -> None:
        self._network, self._score, self._wanted, self._measured = network, score, wanted, measured
        self._images = images
        for name, image in zip(network.network.inputs, images, strict=True):
            _require_finite(network.network.layer(name), image)
        self._floats, self._integers = network.inputs(images)
        self._reference = network.finish(0, dict(self._floats), integers=False)

    def __call__(self) -> BatchSums:
        network = self._network
        in_float = self._answer(self._reference)
        in_integers = self._answer(network.finish(0, dict(self._integers), integers=True))
        layers = {}
        for name in network.network.inputs:
            if name in self._wanted:
                layers[name] = self._input(name)
                self._measured(name)
        for index, step in enumerate(network.steps):
            made = self._step(index, step)
            if made is not None:
                layers[step.name] = made
                self._measured(step.name)
        signal = tuple(_energy(value) for value in self._reference.values())
        return BatchSums(len(self._images[0]), signal, in_float, in_integers, layers)

    def _input(self, name: str) -> LayerSums:
        y, q = self._floats[name], self._integers[name]
        assert isinstance(q, QTensor)
        only = self._rest(0, self._floats, name, q, integers=False)
        without = self._rest(0, self._integers, name, y, integers=True)
        return _sums(as_float(y), as_float(y), q, q, q, only, without)

    def _step(self, index: int, step: Step) -> LayerSums | None:
        """Take a layer's turn in both networks; its sums if it is to be looked at."""
        network, name = self._network, step.name
        y = network.in_float(step, self._floats)
        _require_finite(network.layer(step), y)
        q = network.in_integers(step, self._integers)
        if name not in self._wanted:
            self._advance(index, name, y, q)
            return None
        assert isinstance(q, QTensor)
        z = network.with_integer_weights(step, self._floats) if network.has_weights(step) else y
        # A constant's integers are its own; everything else is rounded to the output's steps.
        output = network.rounded(name, y) if step.inputs else q
        alone = network.rounded(name, z) if step.inputs else q
        left = network.in_float(step, self._integers)
        self._advance(index, name, y, q)
        only = self._rest(index + 1, self._floats, name, alone, integers=False)
        without = self._rest(index + 1, self._integers, name, left, integers=True)
        return _sums(y, z, output, alone, q, only, without)

    def _advance(self, index: int, name: str, y: Value, q: Value) -> None:
        self._floats[name], self._integers[name] = y, q
        self._network.free(index, self._floats)
        self._network.free(index, self._integers)

    def _rest(self, start: int, values: Mapping[str, Value], name: str, value: Value, integers: bool) -> Answer:
        """The answer when one tensor is replaced."""
        replaced: MutableMapping[str, Value] = {**values, name: value}
        return self._answer(self._network.finish(start, replaced, integers))

    def _answer(self, outputs: Mapping[str, Tensor]) -> Answer:
        noise = tuple(_energy(outputs[name] - reference) for name, reference in self._reference.items())
        return Answer(noise, tuple(self._score(self._network.network.nested(outputs))))


def _require_finite(layer: Layer, values: Tensor) -> None:
    """Values that no integers can stand for are the float network's fault, or the data's."""
    if math.isfinite(sum(float(value) for value in torch.aminmax(values))):
        return
    if layer.kind == "input":
        place, remedy = (
            "the network input",
            "the data and their transforms: divisions by 0, missing values, wrong types",
        )
    else:
        place, remedy = (
            "its output",
            "the float network: predict --stage float must give finite outputs on these images",
        )
    raise QuantizationError(
        "the layer cannot be measured",
        where=str(layer.source),
        seen=f"NaN or infinite values in {place}",
        remedy=f"look at {remedy}",
    )


def _sums(
    y: Tensor, z: Tensor, output: QTensor, alone: QTensor, q: QTensor, only: Answer, without: Answer
) -> LayerSums:
    low, high = (float(value) for value in torch.aminmax(y))
    lowest, highest = INT_RANGE[output.dtype]
    outside = (y < (lowest - 0.5) * output.scale) | (y > (highest + 0.5) * output.scale)
    by_channel = y.ndim in (2, 4)
    channels = y.abs().amax(dim=[d for d in range(y.ndim) if d != 1]) if by_channel else y.new_zeros(0)
    return LayerSums(
        elements=y.numel(),
        low=low,
        high=high,
        signal=_energy(y),
        from_weights=0.0 if z is y else _energy(z - y),
        from_output=_energy(as_float(output) - y),
        alone=_energy(as_float(alone) - y),
        accumulated=_energy(as_float(q) - y),
        clipped=int(outside.sum()),
        channel_absmax=channels.double().cpu().numpy(),
        histogram=histogram_of(y, max(abs(low), abs(high))),
        slots=_slots(q),
        only=only,
        without=without,
    )


def _slots(q: QTensor) -> Counts:
    lowest, highest = INT_RANGE[q.dtype]
    part = (highest - lowest + 1) // SLOTS
    index = torch.floor((q.values - lowest) / part).flatten().long()
    return torch.bincount(index, minlength=SLOTS).cpu().numpy().astype(np.int64)


def _energy(values: Tensor) -> float:
    """The sum of squares, in float64."""
    norm = torch.linalg.vector_norm(values, dtype=torch.float64)
    return float(norm) ** 2
