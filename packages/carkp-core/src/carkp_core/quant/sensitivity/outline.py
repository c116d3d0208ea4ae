"""What a network's layers are, before anything is measured: operator, place, scale, what equalization may scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from attrs import frozen

from carkp_core.quant.layer import Bounds, Layer
from carkp_core.quant.ops.weighted import Weighted
from carkp_core.quant.repair.channel_scales import FIXED, ChannelScales, channel_scales
from carkp_core.quant.sensitivity.measurement import measured_layers
from carkp_core.quant.sensitivity.mixed import MixedNetwork


@frozen
class LayerOutline:
    """One layer that rounds. ``weight_imbalance`` is of the input channels of its weights, 1 without."""

    name: str
    op: str
    source: str
    module_path: str
    dtype: str
    scale: float
    bounds: Bounds
    observer: str
    #: The scale was given, not calibrated.
    fixed: bool
    weight_imbalance: float
    #: Equalization may scale channels of the output, and of the input.
    scalable: bool
    input_scalable: bool


@frozen
class Outline:
    """All layers that round, by tensor name, in execution order."""

    layers: Mapping[str, LayerOutline]


def outline(network: MixedNetwork, observer: str = "") -> Outline:
    """Describe a network.

    Parameters
    ----------
    observer:
        The name of the observer that calibration used where the network does not say.
    """
    quantized = network.network
    device = next((b.device for b in quantized.buffers()), torch.device("cpu"))
    scales = channel_scales(quantized, [torch.zeros(s, device=device) for s in quantized.input_shapes.values()])
    return Outline({name: _layer(network, name, observer, scales) for name in measured_layers(network)})


def _layer(network: MixedNetwork, name: str, observer: str, scales: ChannelScales) -> LayerOutline:
    layer, kind = network.network.layer(name), network.kinds[name]
    fixed = bool(getattr(layer, "fixed", False)) or not layer.own_scale
    chosen = network.network.observer_choices.get(name, {}).get("observer", observer)
    weighted = next((w for w in scales.weighted if w.name == name), None)
    return LayerOutline(
        name=name,
        op=layer.kind,
        source=str(layer.source),
        module_path=layer.source.module_path,
        dtype=kind.dtype,
        scale=kind.scale,
        bounds=layer.bounds,
        observer="fixed" if fixed else str(chosen),
        fixed=fixed,
        weight_imbalance=_weight_imbalance(layer),
        scalable=name in scales.tensors and bool((scales.tensors[name] > FIXED).any()),
        input_scalable=weighted is not None and bool((weighted.inputs > FIXED).any()),
    )


def _weight_imbalance(layer: Layer) -> float:
    """Of the input channels of a layer's weights: one that is loud leaves the others few steps of each row's scale."""
    if not isinstance(layer, Weighted):
        return 1.0
    weight, _ = layer.folded()
    inputs = weight.shape[1] if layer.kind != "conv_transpose2d" else weight.shape[0] // layer.groups
    rows = layer.rows(weight.detach()).abs().reshape(layer.out_channels, inputs, -1).amax(dim=2)
    if inputs < 2:
        return 1.0
    alive = rows.amax(dim=0).double().cpu().numpy()
    alive = alive[alive > 0.0]
    return float(alive.max() / np.median(alive)) if alive.size else 1.0
