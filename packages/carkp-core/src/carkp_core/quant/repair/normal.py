"""What batch norms say of tensors without looking at data: each channel a normal variable, clipped by activations.

Batch norm gives a channel the mean beta and the deviation |gamma|. Behind it a clamp to [a, b] leaves (Nagel et al.
2019, arXiv:1906.04721, appendix C), with alpha = (a - mean) / dev and beta = (b - mean) / dev::

    E[x]   = a Phi(alpha) + b (1 - Phi(beta)) + mean (Phi(beta) - Phi(alpha)) + dev (phi(alpha) - phi(beta))
    E[x^2] = a^2 Phi(alpha) + b^2 (1 - Phi(beta)) + (mean^2 + dev^2) (Phi(beta) - Phi(alpha))
             + dev ((mean + a) phi(alpha) - (mean + b) phi(beta))

Sums add means and variances. What else happens to a tensor leaves its channels unknown.

Legend: mean and variance by channel, [C] float64.
"""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor

from carkp_core.quant.layer import Bounds, Layer
from carkp_core.quant.network import QuantizedNetwork, Step
from carkp_core.quant.ops.concat import Concat
from carkp_core.quant.ops.conv_transpose import ConvTranspose2d
from carkp_core.quant.ops.convolution import Conv2d
from carkp_core.quant.ops.elementwise import Add
from carkp_core.quant.ops.pooling import AvgPool
from carkp_core.quant.ops.table import Clamp
from carkp_core.quant.ops.weighted import Weighted

_LEAST_DEVIATION = 1e-12


@frozen(eq=False)
class Moments:
    """Mean and variance of each channel, [C]."""

    mean: Tensor
    variance: Tensor

    def clamped(self, bounds: Bounds) -> Moments:
        """Behind a clamp, taking the channel for a normal variable."""
        low, high = bounds
        dev = self.variance.sqrt().clamp_min(_LEAST_DEVIATION)
        first, second = self.mean.clone(), self.variance + self.mean.square()
        below, above = torch.zeros_like(dev), torch.ones_like(dev)
        density = torch.zeros_like(dev)
        weighted = torch.zeros_like(dev)
        edges_first, edges_second = torch.zeros_like(dev), torch.zeros_like(dev)
        if low is not None:
            z = (low - self.mean) / dev
            below, phi = _phi_sum(z), _phi(z)
            density, weighted = density + phi, weighted + (self.mean + low) * phi
            edges_first, edges_second = edges_first + low * below, edges_second + low**2 * below
        if high is not None:
            z = (high - self.mean) / dev
            above, phi = _phi_sum(z), _phi(z)
            density, weighted = density - phi, weighted - (self.mean + high) * phi
            edges_first, edges_second = edges_first + high * (1 - above), edges_second + high**2 * (1 - above)
        inside = above - below
        first = edges_first + self.mean * inside + dev * density
        second = edges_second + (self.mean.square() + self.variance) * inside + dev * weighted
        return Moments(first, (second - first.square()).clamp_min(0.0))


def expected_inputs(network: QuantizedNetwork) -> dict[Step, tuple[Tensor | None, tuple[str, ...]]]:
    """For each weighted layer's step: the expected value of its input channels [C], None where unknown.

    With it, for each of its inputs, the tensor whose scale it has.
    """
    known: dict[str, Moments | None] = dict.fromkeys(network.inputs)
    owners = {name: name for name in network.inputs}
    found: dict[Step, tuple[Tensor | None, tuple[str, ...]]] = {}
    for step in network.steps:
        layer = network.layer(step.name)
        given = [known[name] for name in step.inputs]
        owners[step.name] = step.name if layer.own_scale or not step.inputs else owners[step.inputs[0]]
        if isinstance(layer, (Conv2d, ConvTranspose2d)):
            first = given[0]
            found[step] = (None if first is None else first.mean, tuple(owners[name] for name in step.inputs))
        known[step.name] = _through(layer, given)
    return found


def _through(layer: Layer, given: list[Moments | None]) -> Moments | None:
    if isinstance(layer, (Conv2d, ConvTranspose2d)):
        made = _of_batch_norm(layer)
        if made is None or not getattr(layer, "residual", ""):
            return None if made is None else made.clamped(layer.bounds)
        other = given[1]
        if other is None:
            return None
        sign = -1.0 if getattr(layer, "residual", "") == "-" else 1.0
        return Moments(made.mean + sign * other.mean, made.variance + other.variance).clamped(layer.bounds)
    if not given or any(moments is None for moments in given):
        return None
    moments = [m for m in given if m is not None]
    if isinstance(layer, Add) and moments[0].mean.shape == moments[1].mean.shape:
        signs = [-1.0 if negative else 1.0 for negative in layer.negative]
        mean = sum((s * m.mean for s, m in zip(signs, moments, strict=True)), torch.zeros_like(moments[0].mean))
        return Moments(mean, moments[0].variance + moments[1].variance).clamped(layer.bounds)
    if isinstance(layer, Clamp):
        return moments[0].clamped(layer.bounds)
    if isinstance(layer, AvgPool) and layer.bounds == Bounds() and layer.divisor is None:
        # The mean of a window has the mean of its elements; its variance is less, and is not known.
        return moments[0]
    if isinstance(layer, Concat) and layer.axis == 1 and layer.bounds == Bounds():
        return Moments(torch.cat([m.mean for m in moments]), torch.cat([m.variance for m in moments]))
    return None


def _of_batch_norm(layer: Weighted) -> Moments | None:
    if layer.bn is not None and layer.bn.weight is not None:
        return Moments(layer.bn.bias.detach().double(), layer.bn.weight.detach().double().square())
    if layer.normal is not None:
        mean, deviation = layer.normal
        return Moments(mean.double(), deviation.double().square())
    return None


def _phi(z: Tensor) -> Tensor:
    return torch.exp(-z.square() / 2.0) / math.sqrt(2.0 * math.pi)


def _phi_sum(z: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-z / math.sqrt(2.0))
