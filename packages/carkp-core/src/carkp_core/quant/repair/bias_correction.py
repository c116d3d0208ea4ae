"""Bias correction: take the mean of a layer's quantization error out of its bias.

Rounding weights moves a channel's mean by E[(w' - w) x], which adds up over layers and looks like another image to the
next one. Nagel et al. 2019 (arXiv:1906.04721, section 4.2) subtract it from the bias:

``empirical``
    layer by layer in order, the difference of the outputs' means, float minus quantized, on the batches. Errors that
    come with the inputs, and those of clipping, are corrected too. (Measured behind the activation: before it, the mean
    of a channel that is mostly cut off says little about what the next layer gets.)
``analytic``
    without data: b -= sum (w' - w) E[x], where the batch norm before an input channel says that it is a normal variable
    of mean beta and deviation |gamma|, clipped at 0 by a ReLU:
    E[x] = mean Phi(mean / dev) + dev phi(mean / dev).

Legend: ``O`` output channels; tensors' mean and variance by channel [C].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from carkp_core.errors import ConfigError
from carkp_core.quant.layer import float_input
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.ops.weighted import Weighted
from carkp_core.quant.repair.normal import expected_inputs
from carkp_core.quant.repair.ranges import SAMPLES_AT_ONCE
from carkp_core.quant.repair.repair import InputBatch, note
from carkp_core.quant.repair.side_by_side import (
    Visit,
    first_samples,
    float_reference,
    forget_reference,
    output_sqnr_db,
    visits,
)
from carkp_core.quant.repair.weighted_layers import shared_weights, weighted

MODES = ("empirical", "analytic")


class BiasCorrection:
    """Correct biases once the scales are known.

    A layer that has neither a bias nor a batch norm has nothing to correct; one whose weights the network uses twice is
    left alone, since its uses have errors of their own. Where the outputs are worse afterwards, as a few images may
    bring about, all biases stay what they were.

    Parameters
    ----------
    mode:
        ``empirical`` or ``analytic``.
    samples:
        Images that the empirical mode looks at; it keeps their tensors in memory.
    """

    def __init__(self, mode: str = "empirical", samples: int = 64) -> None:
        if mode not in MODES:
            raise ConfigError("BiasCorrection: unknown mode", seen=repr(mode), allowed=", ".join(MODES))
        if samples < 1:
            raise ConfigError("BiasCorrection: samples is below 1", seen=str(samples))
        self.mode, self.samples = mode, samples

    def before_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Nothing: the errors are not known yet."""
        forget_reference(network)

    def after_calibration(self, network: QuantizedNetwork, batches: Sequence[InputBatch]) -> None:
        """Change the biases."""
        reference = float_reference(network)
        looked_at = [first_samples(batches, self.samples)]
        before = output_sqnr_db(network, looked_at, reference)
        skipped = shared_weights(network)
        biases = [(bias, bias.detach().clone()) for bias in _biases(network)]
        corrected = (
            self._empirical(network, batches, skipped) if self.mode == "empirical" else _analytic(network, skipped)
        )
        after = output_sqnr_db(network, looked_at, reference)
        kept = after >= before
        if kept:
            most = max(corrected.values(), default=0.0)
            did = f"{len(corrected)} layers, by up to {most:.2f} output steps"
        else:
            _put_back(biases)
            did = f"left as it was, since {len(corrected)} corrected layers are worse"
        summary = f"{self.mode}, {did}; output SQNR {before:.2f} -> {after:.2f} dB"
        report = {
            "mode": self.mode,
            "kept": kept,
            "layers": {name: {"greatest_correction_steps": steps} for name, steps in corrected.items()},
            "left_alone": [s.name for s in network.steps if weighted(network, s.name) and s.name not in corrected],
            "output_sqnr_db_before": before,
            "output_sqnr_db_after": after if kept else before,
            "output_sqnr_db_corrected": after,
        }
        note(network, self, summary, report)

    def _empirical(
        self, network: QuantizedNetwork, batches: Sequence[InputBatch], skipped: set[str]
    ) -> dict[str, float]:
        corrected = {}
        for visit in visits(network, batches, self.samples):
            layer = weighted(network, visit.step.name)
            if layer is None or visit.step.name in skipped:
                continue
            error = _mean_error(visit)
            if _shift(layer, error):
                corrected[visit.step.name] = float((error.abs() / layer.wanted_scale()).max())
        return corrected


def _mean_error(visit: Visit) -> Tensor:
    """Float minus quantized output, averaged over samples and positions: [O], float64."""
    output = visit.run()
    parts = [
        (visit.float_output[start : start + SAMPLES_AT_ONCE] - float_input(output.part(start))).double()
        for start in visit.starts()
    ]
    return torch.cat([part.mean(dim=(2, 3)) for part in parts]).mean(dim=0)


def _analytic(network: QuantizedNetwork, skipped: set[str]) -> dict[str, float]:
    corrected = {}
    scales = {name: layer.wanted_scale() for name, layer in network.scaled_layers()}
    for step, (expected, source) in expected_inputs(network).items():
        layer = weighted(network, step.name)
        if layer is None or expected is None or step.name in skipped:
            continue
        residual = scales[source[1]] if len(source) > 1 else None
        constants = layer.integers(scales[source[0]], network.layer(source[0]).dtype, residual)
        rows = layer.rows(layer.folded()[0]).detach().double()
        error = rows - constants.weight.double() * constants.scale_w[:, None]
        per_group = expected.reshape(layer.groups, -1).double()
        columns = per_group.repeat_interleave(layer.out_channels // layer.groups, dim=0)
        moved = (error.reshape(*columns.shape, -1) * columns[:, :, None]).sum(dim=(1, 2))
        if _shift(layer, moved):
            corrected[step.name] = float((moved.abs() / layer.wanted_scale()).max())
    return corrected


def _shift(layer: Weighted, by: Tensor) -> bool:
    """Add to the bias, or to the batch norm's that QAT keeps; False when there is none."""
    bias = _bias(layer)
    if bias is None:
        return False
    with torch.no_grad():
        bias.add_(by.to(bias))
    return True


def _bias(layer: Weighted) -> Tensor | None:
    return layer.bn.bias if layer.bn is not None else layer.bias


def _biases(network: QuantizedNetwork) -> list[Tensor]:
    layers = [weighted(network, step.name) for step in network.steps]
    biases = [_bias(layer) for layer in layers if layer is not None]
    return [bias for bias in biases if bias is not None]


def _put_back(biases: Sequence[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for bias, before in biases:
            bias.copy_(before)
