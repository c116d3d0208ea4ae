"""Which layer of a quantized network hurts: measured on a network alone, without a config.

>>> found = sensitivity(network, batches)          # doctest: +SKIP
>>> worst_layers(found)                            # doctest: +SKIP
['backbone.stages.1.0.layers.depthwise.conv']
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.sensitivity.findings import Sensitivity, findings, worst_layers
from carkp_core.quant.sensitivity.measurement import measure
from carkp_core.quant.sensitivity.mixed import MixedNetwork
from carkp_core.quant.sensitivity.outline import outline

__all__ = ["Sensitivity", "sensitivity", "worst_layers"]


def sensitivity(network: QuantizedNetwork, batches: Iterable[Sequence[Tensor]]) -> Sensitivity:
    """Measure a calibrated network in evaluation mode.

    Parameters
    ----------
    batches:
        What to call it with: a tensor [N, ...] for each of its inputs, at least one batch.

    Raises
    ------
    QuantizationError
        Without any batch, or when an input or a layer of the float network is NaN or infinite.
    """
    mixed = MixedNetwork(network)
    return findings([measure(mixed, images) for images in batches], outline(mixed))
