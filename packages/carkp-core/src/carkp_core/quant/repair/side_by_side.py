"""The float network and the quantized one, layer by layer on the same samples: for passes that repair in order.

A visit to a layer shows what it is given in float and in integers, before it runs; what the visitor changes counts for
this layer and all behind it. The float values stay those of the network as calibration found it.

Legend: ``S`` samples.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from carkp_core.quant import exact
from carkp_core.quant.exact import QTensor
from carkp_core.quant.layer import Layer, float_input
from carkp_core.quant.network import QuantizedNetwork, Step
from carkp_core.quant.repair.ranges import SAMPLES_AT_ONCE, portions
from carkp_core.quant.repair.repair import InputBatch

#: What no noise at all counts as.
MOST_DB = 300.0

#: For ``float_reference``; an entry goes with its network.
_REFERENCES: weakref.WeakKeyDictionary[QuantizedNetwork, QuantizedNetwork] = weakref.WeakKeyDictionary()

#: How whole numbers are kept between layers.
_STORED = {"int8": torch.int8, "int16": torch.int16}


@frozen(eq=False)
class Stored:
    """The whole numbers [S, ...] of a tensor, small in memory."""

    values: Tensor
    scale: float
    dtype: str

    def part(self, start: int) -> QTensor:
        """A portion of the samples."""
        return QTensor(self.values[start : start + SAMPLES_AT_ONCE].float(), self.scale, self.dtype)


@frozen(eq=False)
class Visit:
    """A layer about to run: its float inputs and output [S, ...], and its integer inputs."""

    step: Step
    layer: Layer
    float_inputs: tuple[Tensor, ...]
    float_output: Tensor
    inputs: tuple[Stored, ...]

    @property
    def samples(self) -> int:
        """S."""
        return len(self.float_output)

    def starts(self) -> range:
        """Where portions start."""
        return range(0, self.samples, SAMPLES_AT_ONCE)

    def run(self) -> Stored:
        """The layer's integer output, as it is now."""
        parts = [self.layer.integer_forward(*(given.part(start) for given in self.inputs)) for start in self.starts()]
        return _stored(parts)


def visits(network: QuantizedNetwork, batches: Sequence[InputBatch], samples: int) -> Iterator[Visit]:
    """Visit the layers in order, with the first ``samples`` of the batches."""
    reference = float_reference(network)
    images = first_samples(batches, samples)
    floats: dict[str, Tensor] = dict(zip(network.inputs, images, strict=True))
    with torch.no_grad(), exact.exact_convolutions():
        integers = {name: _stored([_quantized(network, name, image)]) for name, image in floats.items()}
        for step, freed in zip(network.steps, network.freed, strict=True):
            layer, original = network.layer(step.name), reference.layer(step.name)
            given = tuple(floats[name] for name in step.inputs)
            floats[step.name] = _float_run(original, given, len(images[0]))
            visit = Visit(step, layer, given, floats[step.name], tuple(integers[name] for name in step.inputs))
            yield visit
            integers[step.name] = visit.run()
            for name in freed:
                del floats[name], integers[name]


def float_reference(network: QuantizedNetwork) -> QuantizedNetwork:
    """The float network as it was before the first pass after calibration changed it.

    Passes that round weights and shift biases come one after the other, and each wants the outputs of the network that
    is quantized, not those of what the passes before it made of it.
    """
    if network not in _REFERENCES:
        _REFERENCES[network] = copy.deepcopy(network)
    return _REFERENCES[network]


def forget_reference(network: QuantizedNetwork) -> None:
    """Calibration starts anew: what the network computes now is what counts."""
    _REFERENCES.pop(network, None)


def first_samples(batches: Sequence[InputBatch], samples: int) -> InputBatch:
    """The first samples of all batches in one batch."""
    return tuple(torch.cat(parts)[:samples] for parts in zip(*batches, strict=True))


def output_sqnr_db(network: QuantizedNetwork, batches: Sequence[InputBatch], reference: QuantizedNetwork) -> float:
    """Signal over quantization noise in decibels, the outputs' mean, against the float outputs of ``reference``."""
    signal, noise = dict.fromkeys(network.output_names, 0.0), dict.fromkeys(network.output_names, 0.0)
    with torch.no_grad():
        for images in portions(batches):
            wanted = reference.float_values(images)
            got = network.integer_values(images)
            for name in signal:
                signal[name] += squares(wanted[name])
                noise[name] += squares(float_input(got[name]) - wanted[name])
    return decibels(1.0, mean_noise(signal, noise))


def squares(values: Tensor) -> float:
    """The sum of squares."""
    return float(values.double().square().sum())


def mean_noise(signal: Mapping[str, float], noise: Mapping[str, float]) -> float:
    """Noise over signal, the mean over the outputs, so that none counts more for its unit.

    An output of zeros counts as 1 where there is noise, as in the sensitivity report.
    """
    ratios = [noise[name] / signal[name] if signal[name] > 0.0 else float(noise[name] > 0.0) for name in signal]
    return sum(ratios) / len(ratios)


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``, within +-MOST_DB: reports hold plain numbers."""
    if noise <= 0.0:
        return MOST_DB
    return max(-MOST_DB, min(MOST_DB, 10.0 * math.log10(max(signal, 1e-300) / noise)))


def _quantized(network: QuantizedNetwork, name: str, image: Tensor) -> QTensor:
    layer: Any = network.inputs[name]
    return layer.quantize(image)  # type: ignore[no-any-return]


def _float_run(layer: Layer, given: tuple[Tensor, ...], samples: int) -> Tensor:
    starts = range(0, samples, SAMPLES_AT_ONCE)
    return torch.cat([layer.float_forward(*(x[s : s + SAMPLES_AT_ONCE] for x in given)) for s in starts])


def _stored(parts: Sequence[QTensor]) -> Stored:
    first = parts[0]
    return Stored(torch.cat([part.values.to(_STORED[first.dtype]) for part in parts]), first.scale, first.dtype)
