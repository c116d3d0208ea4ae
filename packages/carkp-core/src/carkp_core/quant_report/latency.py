"""What int16 would add to a frame's latency, layer by layer, from the backend's own check and estimate."""

from __future__ import annotations

import copy

import attrs

from carkp_core.backend import CheckReport, CompileOptions, NpuBackend
from carkp_core.errors import CarkpError
from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.int16 import widen
from carkp_core.quant.sensitivity.advice import Advice
from carkp_core.quant.sensitivity.findings import LayerFindings, Sensitivity
from carkp_core.quant.types import deciding, set_types
from carkp_core.session import Session

#: Estimates are made for this many of the worst layers: each plans the whole network once.
ESTIMATED_LAYERS = 8


def with_latencies(found: Sensitivity, network: QuantizedNetwork, session: Session) -> Sensitivity:
    """Fill in the advice of int16 what it costs, or that the march refuses it, where a backend can say it.

    Costs are those of the worst layers. What the march refuses gets none: the backend's estimate leaves it out.
    """
    advised = [layer for layer in found.ranked() if any(a.action == "int16" for a in layer.advice)]
    backend = session.context.backend_or_none()
    if not advised or backend is None:
        return found
    options, task = session.compile_options(), session.context.task
    plain = copy.deepcopy(network).cpu()
    try:
        present = convert(plain, task, allow_unknown=True)
        refused = _refusals(backend.check(present, options.march))
    except CarkpError:
        return found  # it would not convert: the advice stands without a price
    present_ms = _latency_ms(backend, present, options)
    said: dict[str, tuple[str, float | None]] = {}
    for place, layer in enumerate(advised):
        try:
            wide = convert(_widened(plain, layer), task, allow_unknown=True)
            rules = _refusals(backend.check(wide, options.march)) - refused
        except CarkpError:
            continue
        cost = None
        if not rules and present_ms is not None and place < ESTIMATED_LAYERS:
            wide_ms = _latency_ms(backend, wide, options)
            cost = None if wide_ms is None else wide_ms - present_ms
        said[layer.name] = ", ".join(sorted({rule for rule, _ in rules})), cost
    return attrs.evolve(found, layers=tuple(_told(layer, *said.get(layer.name, ("", None))) for layer in found.layers))


def _latency_ms(backend: NpuBackend, graph: Graph, options: CompileOptions) -> float | None:
    try:
        return backend.estimate(graph, options).latency_ms
    except CarkpError:
        return None


def _widened(plain: QuantizedNetwork, layer: LayerFindings) -> QuantizedNetwork:
    """A copy whose tensor is int16."""
    wide = copy.deepcopy(plain)
    name = deciding(wide, layer.name)
    set_types(wide, {name: "int16"})
    widen(wide, [name], {name: max(abs(layer.low), abs(layer.high))})
    return wide


def _refusals(report: CheckReport) -> set[tuple[str, str]]:
    """The rule and the node of each refusal."""
    found = {(violation.rule, violation.node) for violation in report.violations}
    named = {node for _, node in found}
    off = {(f"not on the NPU: {v.op}", v.node) for v in report.nodes if v.verdict != "NPU" and v.node not in named}
    return found | off


def _told(layer: LayerFindings, refused_by: str, latency_ms: float | None) -> LayerFindings:
    """The layer with what the march says of its int16."""
    advice = tuple(_answered(a, refused_by, latency_ms) if a.action == "int16" else a for a in layer.advice)
    return attrs.evolve(layer, advice=advice)


def _answered(advice: Advice, refused_by: str, latency_ms: float | None) -> Advice:
    if not refused_by:
        return attrs.evolve(advice, latency_ms=latency_ms)
    text = f"int16 would help, but the march refuses it here: {refused_by}"
    return attrs.evolve(advice, text=text, config="", refused_by=refused_by)
