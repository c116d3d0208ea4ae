"""What a network's layers are, before anything is measured: operator, place, scale, what equalization may scale."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from attrs import frozen

from carkp_core.quant.layer import Bounds, Layer
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.channel_scales import ChannelScales, channel_scales
from carkp_core.quant.repair.weighted_layers import shared_weights
from carkp_core.quant.sensitivity.balance import Floats, Ids, channel_variables, importance, reach
from carkp_core.quant.sensitivity.measurement import measured_layers
from carkp_core.quant.sensitivity.mixed import MixedNetwork


@frozen
class Offer:
    """A candidate of an observer that chooses: its threshold, and the output error that it would have made."""

    name: str
    threshold: float
    error: float


@frozen(eq=False)
class LayerOutline:
    """One layer that rounds."""

    name: str
    op: str
    source: str
    module_path: str
    dtype: str
    scale: float
    bounds: Bounds
    #: What chose the scale; ``offers`` are its candidates, where it had a choice by output error.
    observer: str
    offers: tuple[Offer, ...]
    #: The repair passes that it went through.
    repairs: tuple[str, ...]
    #: Another layer has the same weights: a module that the network uses twice.
    shared: bool
    #: The scale was given, not calibrated.
    fixed: bool
    #: Of the output's channels: their variables [C], and the energy of the weights that read them.
    variables: Ids
    importance: Floats
    #: The tensor that the layer reads first, and the share of steps that its weights use for each channel of that.
    reads: str
    reach: Floats


@frozen(eq=False)
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
    shared = shared_weights(quantized)
    return Outline({name: _layer(network, name, observer, scales, shared) for name in measured_layers(network)})


def _layer(
    network: MixedNetwork, name: str, observer: str, scales: ChannelScales, shared: Collection[str]
) -> LayerOutline:
    layer, kind = network.network.layer(name), network.kinds[name]
    fixed = bool(getattr(layer, "fixed", False)) or not layer.own_scale
    record = network.network.observer_choices.get(name, {})
    errors = record.get("errors") or {}
    weighted = next((w for w in scales.weighted if w.name == name), None)
    variables, reads = channel_variables(scales, name), "" if weighted is None else weighted.source
    return LayerOutline(
        name=name,
        op=layer.kind,
        source=str(layer.source),
        module_path=layer.source.module_path,
        dtype=kind.dtype,
        scale=kind.scale,
        bounds=layer.bounds,
        observer="fixed" if fixed else _observer(record, observer, layer),
        offers=tuple(Offer(key, record["thresholds"][key], error) for key, error in errors.items()),
        fixed=fixed,
        repairs=_repairs(network.network, name),
        shared=name in shared,
        variables=variables,
        importance=importance(scales, name, variables),
        reads=reads,
        reach=reach(weighted, scales.count, channel_variables(scales, reads)),
    )


def _repairs(network: QuantizedNetwork, name: str) -> tuple[str, ...]:
    """The passes that a layer went through: those of the whole network, and those that name it among their layers."""
    done = [report for report in network.repairs if name in report.get("layers", (name,))]
    return tuple(str(report.get("repair", "")) for report in done)


def _observer(record: Mapping[str, Any], otherwise: str, layer: Layer) -> str:
    """Who chose the scale: the observer, its choice, and training where the scale has moved since."""
    name = str(record.get("observer", otherwise))
    choice = record.get("choice", name)
    said = name if choice == name else f"{name}: {choice}"
    moved = "scale" in record and not math.isclose(float(layer.scale.detach()), record["scale"], rel_tol=1e-3)
    return f"{said}, changed since" if moved else said
