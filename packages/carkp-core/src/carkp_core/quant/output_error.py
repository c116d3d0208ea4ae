"""What rounding one tensor costs where it is read: the error of its readers' outputs, all else in float.

For a tensor x, a scale s and each layer y = f(x, ...) that reads x, the float layer runs on x and on x rounded to steps
of s::

    error(x, s) = sum over the readers of |f(round(x)) - f(x)|**2 / |f(x)|**2

A clamp in f forgives what it cuts off, weights of 0 forgive noise in their channels, and a sum over many elements
averages rounding noise but keeps what clipping takes away: that is why a histogram alone does not say which scale is
best. A move (reshape, slice, max pooling ...) keeps its input's whole numbers, so what reads its output reads x; behind
x * constant the steps are ``constant * s``. An output of the network is compared with itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.quant.observers.observer import flattened

if TYPE_CHECKING:
    from carkp_core.quant.network import QuantizedNetwork

#: Samples that are measured at once: the tensors of so many are in memory together.
SLICE = 16

#: Tensor name -> scales to try.
Scales = Mapping[str, Sequence[float]]
#: (reader, tensor, scale) -> sum of squared errors; and reader -> sum of squares.
_Noise = defaultdict[tuple[str, str, float], float]
_Power = defaultdict[str, float]


def sliced(batches: Iterable[Sequence[Tensor]]) -> Iterator[tuple[Tensor, ...]]:
    """The batches in pieces of ``SLICE`` samples."""
    for batch in batches:
        for start in range(0, len(batch[0]), SLICE):
            yield tuple(image[start : start + SLICE] for image in batch)


def output_errors(
    network: QuantizedNetwork, scales: Scales, batches: Iterable[Sequence[Tensor]]
) -> dict[str, dict[float, float]]:
    """Each tensor's relative squared error at its readers, for each of its scales; {} without batches.

    Parameters
    ----------
    network:
        In float, as while observing: none of its own scales is read.
    scales:
        What to try, by tensor name.
    batches:
        Inputs of the network, gone through once.
    """
    noise: _Noise = defaultdict(float)
    power: _Power = defaultdict(float)
    with torch.no_grad():
        for batch in batches:
            _measure(network, scales, batch, noise, power)
    if not power:
        return {}
    errors: dict[str, dict[float, float]] = {name: dict.fromkeys(tried, 0.0) for name, tried in scales.items()}
    for (reader, name, scale), squares in noise.items():
        errors[name][scale] += squares / (power[reader] or 1.0)
    return errors


def _measure(network: QuantizedNetwork, scales: Scales, batch: Sequence[Tensor], noise: _Noise, power: _Power) -> None:
    """Add one batch."""
    values: dict[str, Tensor] = dict(zip(network.inputs, batch, strict=True))
    owner = {name: name for name in network.inputs}  # whose whole numbers a tensor has
    factor = dict.fromkeys(network.inputs, 1.0)  # its steps, in steps of the owner
    for step, freed in zip(network.steps, network.freed, strict=True):
        layer = network.layer(step.name)
        given = [values[name] for name in step.inputs]
        made = values[step.name] = layer.float_forward(*given)
        if not layer.own_scale and step.inputs:
            read = step.inputs[0]
            owner[step.name], factor[step.name] = owner[read], factor[read] * getattr(layer, "factor", 1.0)
        else:
            owner[step.name], factor[step.name] = step.name, 1.0
            power[step.name] += _squares(made)
            for name in {owner[read] for read in step.inputs} & scales.keys():
                for scale in scales[name]:
                    changed = [
                        _rounded(network, name, scale * factor[read], value) if owner[read] == name else value
                        for read, value in zip(step.inputs, given, strict=True)
                    ]
                    noise[step.name, name, scale] += _squares(layer.float_forward(*changed) - made)
        for name in freed:
            del values[name]
    for output in network.output_names:
        name, reader = owner[output], f"{output} (output)"
        power[reader] += _squares(values[output])
        for scale in scales.get(name, ()):
            coarse = _rounded(network, name, scale * factor[output], values[output])
            noise[reader, name, scale] += _squares(coarse - values[output])


def _rounded(network: QuantizedNetwork, name: str, scale: float, values: Tensor) -> Tensor:
    lowest, highest = INT_RANGE[network.layer(name).dtype]
    return (values / scale).round_().clamp_(lowest, highest).mul_(scale)


def _squares(values: Tensor) -> float:
    flat = flattened(values)
    return float(torch.dot(flat, flat))
