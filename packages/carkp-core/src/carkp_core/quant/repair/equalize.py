"""Cross-layer equalization: scale channels where it changes nothing in float and spares steps in integers.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv:1906.04721), divide
channel i by s_i where it is made and multiply by s_i where it is read. Theirs balances the weights of the two layers,
s_i = sqrt(r1_i / r2_i) with r1 the producer's and r2 the consumer's range: what a scale per *tensor* of weights needs
(``by="weights"``).

carkp's weights have a scale for each output channel, so the producer's range costs nothing. What costs is the
*activation* between them, which has one step for all its channels: beside a channel that is 50 times the others, those
keep two or three steps. So by default (``by="ranges"``) the channel's observed range r_i is balanced against the
consumer's weights w_i for it, as Xiao et al. 2022, "SmoothQuant" (arXiv:2211.10438), do for transformers::

    s_i = r_i**a / w_i**(1 - a)

A depthwise consumer has a weight scale for each channel too: there a = 1, all channels fill the range, and nothing is
lost. Behind it a dense consumer's row has one scale for all its input channels, so for each group of channels that are
scaled together the ``a`` is taken (or no change at all) whose predicted error is least::

    error of output o  =  ( D**2 sum_i w_oi**2 s_i**2  +  d_o**2 sum_i m_i / s_i**2 ) / sum_i w_oi**2 m_i
    D = max_i(r_i / s_i) / 127        step of the scaled activation
    d_o = max_i(|w_oi| s_i) / 127     step of the scaled row of weights
    m_i                               mean square of channel i

which is noise over signal, so it does not depend on how the float network happens to be scaled.

Legend: ``V`` variables (``channel_scales``), ``O I taps`` as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.ops.weighted import Weighted
from carkp_core.quant.repair.channel_scales import FIXED, ChannelScales, WeightedScales, channel_scales
from carkp_core.quant.repair.ranges import ChannelRanges, channel_ranges, portions
from carkp_core.quant.repair.repair import InputBatch, first_image, note
from carkp_core.quant.types import unclamp

Floats = npt.NDArray[np.float64]

CRITERIA = ("ranges", "weights")
#: How much of the balance the activation gets; 1 is all.
SHARES = (1.0, 0.75, 0.5, 0.25)
#: A channel seen this much smaller than its tensor's greatest counts as this large: elsewhere it may be larger.
LEAST_RANGE = 2.0**-12
#: A round over all groups that improves the predicted error by less than this share is the last.
LEAST_GAIN = 1e-3


class CrossLayerEqualization:
    """Equalize channels through ReLU, pooling, depthwise convolutions, concats and residual sums.

    Parameters
    ----------
    by:
        ``ranges`` balances observed activations against the weights that read them, ``weights`` the weights of
        neighbouring layers, as in the paper.
    replace_relu6:
        Turn a ReLU6 (any upper clamp) into a ReLU where no value of the batches reaches its bound, so that channels
        before it may be scaled. Where a value does, and by default everywhere, it stays, and its channels with it.
    rounds:
        At most so many rounds over all channels.
    """

    def __init__(self, by: str = "ranges", replace_relu6: bool = False, rounds: int = 20) -> None:
        if by not in CRITERIA:
            raise ConfigError("CrossLayerEqualization: unknown criterion", seen=repr(by), allowed=", ".join(CRITERIA))
        if rounds < 1:
            raise ConfigError("CrossLayerEqualization: rounds is below 1", seen=str(rounds))
        self.by, self.replace_relu6, self.rounds = by, replace_relu6, rounds

    def before_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Scale the weights."""
        replaced = _replace_bounds(network, batches) if self.replace_relu6 else []
        scales = channel_scales(network, first_image(batches))
        ranges = channel_ranges(network, batches, scales)
        model = ErrorModel(scales, ranges)
        if self.by == "ranges":
            factors, groups = balance_ranges(model, self.rounds)
        else:
            factors, groups = balance_weights(model, self.rounds)
        before, after = model.error(np.ones_like(factors)), model.error(factors)
        apply_factors(scales, factors)
        network.equalizations.append({"unclamped": replaced, "factors": factors.tolist()})
        report = {
            "by": self.by,
            "channels": int((factors[1:-1] != 1.0).sum()),
            "greatest_factor": _spread(factors[1:-1]),
            "predicted_error_before": before,
            "predicted_error_after": after,
            "groups": groups,
            "replaced_bounds": replaced,
        }
        note(network, self, _summary(report), report)

    def after_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Nothing: all was done before."""


@frozen(eq=False)
class _Reader:
    """A layer that reads channels: |w| [O, I], sum of w**2 [O, I], both over taps; scales of the rows' signals [O]."""

    scales: WeightedScales
    greatest: Floats
    squares: Floats
    taps: int
    power: Floats

    def columns(self, factors: Floats) -> Floats:
        """s of each weight's input channel, [O or 1, I]."""
        found: Floats = factors[self.scales.inputs]
        return found


class ErrorModel:
    """Predicts what 8 bits cost, from weights and ranges, for any factors [V + 1] (the last is for no channel)."""

    def __init__(self, scales: ChannelScales, ranges: ChannelRanges) -> None:
        self.scales = scales
        self.absmax: dict[str, Floats] = {}
        self.mean_square: dict[str, Floats] = {}
        for name, seen in ranges.absmax.items():
            floor = max(float(seen.max(initial=0.0)), 1e-30) * LEAST_RANGE
            present = np.zeros(scales.count + 1, dtype=bool)
            present[scales.present[name]] = True
            present[-1] = False
            padded = np.where(present, np.maximum(np.append(seen, 0.0), floor), 0.0)
            self.absmax[name] = padded
            self.mean_square[name] = np.where(
                present, np.maximum(np.append(ranges.mean_square[name], 0.0), floor**2), 0.0
            )
        self.readers = [self._reader(found) for found in scales.weighted]

    def error(self, factors: Floats, readers: Sequence[int] | None = None) -> float:
        """Mean noise over signal of the outputs of some layers (all by default), summed over them."""
        chosen = range(len(self.readers)) if readers is None else readers
        return float(sum(self._error_of(self.readers[index], factors) for index in chosen))

    def _error_of(self, reader: _Reader, factors: Floats) -> float:
        columns = reader.columns(factors)
        step = float((self.absmax[reader.scales.source] / factors).max()) / 127.0
        row_step = (reader.greatest * columns).max(axis=1) / 127.0
        mean_square = self.mean_square[reader.scales.source][reader.scales.inputs]
        from_input = step**2 * (reader.squares * columns**2).sum(axis=1)
        from_weights = row_step**2 * reader.taps * (mean_square / columns**2).sum(axis=1)
        return float(np.mean((from_input + from_weights) / reader.power)) / 12.0

    def _reader(self, scales: WeightedScales) -> _Reader:
        rows = scales.rows()
        squares = np.square(rows).sum(axis=2)
        mean_square = self.mean_square[scales.source][scales.inputs]
        power = (squares * mean_square).sum(axis=1)
        # Rows without weights have no noise either.
        return _Reader(scales, np.abs(rows).max(axis=2), squares, rows.shape[2], np.where(power > 0, power, np.inf))


def balance_ranges(model: ErrorModel, rounds: int) -> tuple[Floats, list[dict[str, Any]]]:
    """Factors [V + 1] that balance activations against the weights that read them, group by group."""
    scales = model.scales
    groups = _groups(scales)
    factors = np.ones(scales.count + 1)
    activation, column = _relative_ranges(model)
    shares: dict[int, float] = {}
    for _ in range(rounds):
        total = model.error(factors)
        for index, (members, readers) in enumerate(groups):
            best: tuple[float, float | None, Floats] = (model.error(factors, readers), None, factors)
            for share in SHARES:
                wanted = factors.copy()
                wanted[members] = activation[members] ** share / column[members] ** (1.0 - share)
                wanted[members] /= np.exp(np.log(wanted[members]).mean())
                found = model.error(wanted, readers)
                if found < best[0] * (1.0 - LEAST_GAIN):
                    best = (found, share, wanted)
            if best[1] is not None:
                factors, shares[index] = best[2], best[1]
        if total - model.error(factors) < LEAST_GAIN * total:
            break
    return factors, [_told(model, groups[index][0], factors, share) for index, share in sorted(shares.items())]


def balance_weights(model: ErrorModel, rounds: int) -> tuple[Floats, list[dict[str, Any]]]:
    """Factors [V + 1] that make each channel's producing and reading weights alike: s = sqrt(r1 / r2), repeated."""
    scales = model.scales
    factors = np.ones(scales.count + 1)
    for _ in range(rounds):
        made, read = np.zeros_like(factors), np.zeros_like(factors)
        for reader in model.readers:
            columns = reader.columns(factors)
            outputs = reader.scales.outputs
            scaled = reader.greatest * columns / factors[outputs][:, None]
            np.maximum.at(made, outputs, scaled.max(axis=1))
            np.maximum.at(read, np.broadcast_to(reader.scales.inputs, scaled.shape), scaled)
        usable = (made > 0) & (read > 0)
        usable[[FIXED, -1]] = False
        change = np.sqrt(np.divide(made, read, out=np.ones_like(made), where=usable))
        factors = factors * np.clip(change, LEAST_RANGE, 1.0 / LEAST_RANGE)
        if np.abs(np.log(change)).max() < LEAST_GAIN:
            break
    return factors, [_told(model, members, factors, None) for members, _ in _groups(scales)]


def apply_factors(scales: ChannelScales, factors: Floats) -> None:
    """Divide each channel's producers and multiply its readers by its factor, in place; each set of weights once."""
    done: set[int] = set()
    with torch.no_grad():
        for found in scales.weighted:
            layer = found.layer
            if id(layer.weight) in done:
                continue
            done.add(id(layer.weight))
            made, read = factors[found.outputs], factors[found.inputs]
            if layer.normal is not None:
                mean, deviation = layer.normal
                layer.normal = (mean / _like(made, mean), deviation / _like(made, mean))
            if layer.bn is None:
                _scale_rows(layer, read / made[:, None])
                if layer.bias is not None:
                    layer.bias.div_(_like(made, layer.bias))
                continue
            _scale_rows(layer, np.broadcast_to(read, (len(made), read.shape[1])))
            for parameter in (layer.bn.weight, layer.bn.bias):
                parameter.div_(_like(made, parameter))


def equalize_alike(network: QuantizedNetwork, equalizations: Sequence[Mapping[str, Any]], image: InputBatch) -> None:
    """Scale the channels of a float network as those of another one of the same layers were scaled.

    Parameters
    ----------
    equalizations:
        The other one's ``equalizations``.
    image:
        One sample of each input, (1, ...).

    Raises
    ------
    QuantizationError
        When the layers are not the same.
    """
    for done in equalizations:
        for name in done["unclamped"]:
            unclamp(network, name)
        scales, factors = channel_scales(network, image), np.asarray(done["factors"])
        if len(factors) != scales.count + 1:
            raise QuantizationError(
                "the calibrated network was equalized with other layers",
                seen=f"factors for {len(factors) - 1} channels",
                allowed=str(scales.count),
                remedy="calibrate again: carkp train --stage calibration",
            )
        apply_factors(scales, factors)


def _scale_rows(layer: Weighted, by: Floats) -> None:
    rows = layer.rows(layer.weight)
    scaled = rows.reshape(*by.shape, -1) * _like(by, rows)[:, :, None]
    layer.weight.copy_(layer.unrows(scaled.reshape(rows.shape)))


def _like(values: Floats, tensor: Tensor) -> Tensor:
    return torch.tensor(values, dtype=tensor.dtype, device=tensor.device)


def _relative_ranges(model: ErrorModel) -> tuple[Floats, Floats]:
    """Of each variable [V + 1]: its greatest activation in parts of its tensor's, its greatest weight in its row's."""
    size = model.scales.count + 1
    activation, column = np.full(size, LEAST_RANGE), np.full(size, LEAST_RANGE)
    for absmax in model.absmax.values():
        activation = np.maximum(activation, absmax / max(float(absmax.max()), 1e-30))
    for reader in model.readers:
        most = np.maximum(reader.greatest.max(axis=1, keepdims=True), 1e-30)
        np.maximum.at(column, np.broadcast_to(reader.scales.inputs, reader.greatest.shape), reader.greatest / most)
    return activation, column


def _groups(scales: ChannelScales) -> list[tuple[npt.NDArray[np.int64], list[int]]]:
    """Variables that are balanced together, and which readers see them.

    Those are the channels that one layer makes; layers that share one, as around a residual sum, are one group.
    """
    group_of = np.arange(scales.count)
    for found in scales.weighted:
        members = np.unique(group_of[found.outputs[found.outputs != FIXED]])
        if len(members) > 1:
            group_of[np.isin(group_of, members)] = members[0]
    groups = []
    for root in np.unique(group_of[1:]):
        members = np.flatnonzero(group_of == root)
        members = members[members != FIXED]
        touched = [name for name, present in scales.present.items() if np.isin(present, members).any()]
        readers = [index for index, found in enumerate(scales.weighted) if found.source in touched]
        if readers:
            groups.append((members, readers))
    return groups


def _told(model: ErrorModel, members: npt.NDArray[np.int64], factors: Floats, share: float | None) -> dict[str, Any]:
    """What a report says of a group."""
    makers = [found.name for found in model.scales.weighted if np.isin(found.outputs, members).any()]
    readers = [found.name for found in model.scales.weighted if np.isin(found.inputs, members).any()]
    return {
        "made_by": makers,
        "read_by": readers,
        "channels": len(members),
        "greatest_factor": _spread(factors[members]),
        "activation_share": share,
    }


def _summary(report: Mapping[str, Any]) -> str:
    groups = report["groups"]
    if not groups:
        return "no channels to equalize"
    most = max(groups, key=lambda group: group["greatest_factor"])
    return (
        f"{report['channels']} channels in {len(groups)} groups scaled, by up to {most['greatest_factor']:.3g} behind "
        f"{most['made_by'][0]}; predicted noise over signal, summed over layers: "
        f"{report['predicted_error_before']:.3g} -> {report['predicted_error_after']:.3g}"
    )


def _spread(factors: Floats) -> float:
    """How far the greatest factor is above the least."""
    return float(factors.max() / factors.min()) if len(factors) else 1.0


def _replace_bounds(network: QuantizedNetwork, batches: Sequence[InputBatch]) -> list[str]:
    """Take upper clamps off where no value reaches them; the names of those."""
    clamped = {step.name: network.layer(step.name) for step in network.steps}
    clamped = {n: layer for n, layer in clamped.items() if layer.bounds.high is not None and layer.bounds.low == 0.0}
    reached: set[str] = set()
    for images in portions(batches):
        with torch.no_grad():
            values: Mapping[str, Tensor] = network.float_values(images, keep=True)
        reached |= {
            name for name, layer in clamped.items() if float(values[name].max()) >= float(layer.bounds.high or 0)
        }
    free = [name for name in clamped if name not in reached]
    for name in free:
        unclamp(network, name)
    return free
