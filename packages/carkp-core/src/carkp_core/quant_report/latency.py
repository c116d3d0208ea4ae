"""What int16 would add to a frame's latency, layer by layer, from the backend's own estimate."""

from __future__ import annotations

import copy

import attrs

from carkp_core.errors import CarkpError
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.int16 import widen
from carkp_core.quant.sensitivity.findings import LayerFindings, Sensitivity
from carkp_core.quant.types import deciding, set_types
from carkp_core.session import Session

#: Estimates are made for this many of the worst layers: each plans the whole network once.
ESTIMATED_LAYERS = 8


def with_latencies(found: Sensitivity, network: QuantizedNetwork, session: Session) -> Sensitivity:
    """Fill in the advice of int16 what it costs, for the worst layers, where a backend can say it."""
    advised = [layer for layer in found.ranked() if any(a.action == "int16" for a in layer.advice)]
    backend = session.context.backend_or_none()
    if not advised or backend is None:
        return found
    options, task = session.compile_options(), session.context.task
    plain = copy.deepcopy(network).cpu()

    def latency_ms(network: QuantizedNetwork) -> float | None:
        try:
            return backend.estimate(convert(network, task, allow_unknown=True), options).latency_ms
        except CarkpError:
            return None  # it would not convert or compile: the advice stands without a price

    present = latency_ms(plain)
    if present is None:
        return found
    costs: dict[str, float] = {}
    for layer in advised[:ESTIMATED_LAYERS]:
        wide = copy.deepcopy(plain)
        name = deciding(wide, layer.name)
        set_types(wide, {name: "int16"})
        widen(wide, [name], {name: max(abs(layer.low), abs(layer.high))})
        cost = latency_ms(wide)
        if cost is not None:
            costs[layer.name] = cost - present
    return attrs.evolve(found, layers=tuple(_priced(layer, costs.get(layer.name)) for layer in found.layers))


def _priced(layer: LayerFindings, latency_ms: float | None) -> LayerFindings:
    if latency_ms is None:
        return layer
    advice = tuple(attrs.evolve(a, latency_ms=latency_ms) if a.action == "int16" else a for a in layer.advice)
    return attrs.evolve(layer, advice=advice)
