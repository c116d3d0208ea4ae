"""What equalization could gain at a layer, at most: from the ranges of channels and the weights that read them.

A tensor is rounded with one step for all its channels. If every channel had a step of its own, as far as its range r_c
asks for, the noise in the layers that read it with weights W_c would fall from ``sum T^2 |W_c|^2`` to
``sum r_c^2 |W_c|^2``, T being the range that the step covers. Equalization gets there by scaling channels.

A row of weights is rounded with one step too. If u_c is the share of the rows' steps that an input channel's weights
make use of at most, these weights can be scaled up by 1 / u_c, and the noise falls from ``sum x_c^2`` to
``sum u_c^2 x_c^2``, x_c being the input channel's range. Channels that cannot be scaled have r_c = T and u_c = 1.

Legend: ``C`` channels of a tensor, ``O`` rows, ``I`` input channels of a row, ``taps`` kernel positions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from carkp_core.quant.repair.channel_scales import FIXED, ChannelScales, WeightedScales

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def channel_variables(scales: ChannelScales, name: str) -> Ids:
    """The variable of each channel [C] of a tensor; empty where dimension 1 is no channel."""
    ids = scales.tensors.get(name)
    if ids is None or ids.ndim not in (2, 4):
        return np.zeros(0, np.int64)
    return ids.reshape(ids.shape[1], -1).max(axis=1)


def importance(scales: ChannelScales, name: str, variables: Ids) -> Floats:
    """Sum of squares [C] of the weights that read each channel of a tensor; ones where no weights do."""
    energy = np.zeros(scales.count)
    for reader in scales.weighted:
        if reader.source == name:
            rows = reader.rows()
            np.add.at(energy, np.broadcast_to(reader.inputs, rows.shape[:2]), (rows**2).sum(axis=2))
    found = energy[variables]
    return np.where(variables == FIXED, found.mean() if found.size else 0.0, found) if found.any() else found + 1.0


def reach(weighted: WeightedScales | None, count: int, variables: Ids) -> Floats:
    """The share u_c [C] of the rows' steps that a layer's weights for each channel of its input make use of."""
    used = np.zeros(count)
    if weighted is not None:
        rows = np.abs(weighted.rows()).max(axis=2)
        rows = rows / np.maximum(rows.max(axis=1, keepdims=True), 1e-30)
        np.maximum.at(used, np.broadcast_to(weighted.inputs, rows.shape), rows)
    used[FIXED] = 1.0
    return used[variables]


def output_gain_db(absmax: Floats, threshold: float, weights: Floats, variables: Ids) -> float:
    """What equalizing a tensor's channels could gain. ``absmax`` [C] are their ranges, ``weights`` their importance."""
    if not len(variables) or len(absmax) != len(variables):
        return 0.0
    alive = absmax > 0.0
    ranges = np.where(variables == FIXED, threshold, np.minimum(absmax, threshold))
    return _gain(threshold**2 * weights[alive], ranges[alive] ** 2 * weights[alive])


def weight_gain_db(input_absmax: Floats, used: Floats) -> float:
    """What equalizing a layer's input channels [C] could gain in the rounding of its weights."""
    if not len(used) or len(input_absmax) != len(used):
        return 0.0
    return _gain(input_absmax**2, used**2 * input_absmax**2)


def imbalance(absmax: Floats) -> float:
    """Greatest magnitude over the median one, of the channels that are not all 0; 1 without channels."""
    alive = absmax[absmax > 0.0]
    return float(alive.max() / np.median(alive)) if alive.size else 1.0


def _gain(before: Floats, after: Floats) -> float:
    least, whole = float(after.sum()), float(before.sum())
    return max(0.0, 10.0 * math.log10(whole / least)) if least > 0.0 else 0.0
