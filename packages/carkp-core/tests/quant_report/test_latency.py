"""What int16 would cost, and whether it may be, is asked of the backend, on a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import npu_toys
import pytest
from report_toys import opened

from carkp_core.backend import Backend, CheckReport, PerformanceReport, Violation
from carkp_core.errors import BackendError
from carkp_core.hookspecs import hookimpl
from carkp_core.ir.graph import Graph
from carkp_core.quant.sensitivity import Sensitivity, sensitivity
from carkp_core.quant.sensitivity.advice import Advice
from carkp_core.quant_report.latency import with_latencies
from carkp_core.quant_report.source import open_source
from carkp_core.session import Session, open_session


class Wide(npu_toys.ToyBackend):
    """A frame takes 1 ms and 0.25 ms for each int16 tensor; it cannot plan one whose head is int16.

    An int16 ``project`` is refused by a rule, and ``depthwise`` by another whatever its type. An estimate leaves the
    former out and is the faster for it.
    """

    def check(self, graph: Graph, march: str) -> CheckReport:
        plain = super().check(graph, march)
        broken = {"depthwise": "no_depthwise"}
        if graph.types()["project"].dtype == "int16":
            broken["project"] = "int8_only"
        violations = tuple(Violation(rule, name, "", "", "", "") for name, rule in broken.items())
        return attrs.evolve(plain, violations=plain.violations + violations)

    def estimate(self, graph: Graph, options: Any) -> PerformanceReport:
        if graph.types()["head"].dtype == "int16":
            raise BackendError("too wide")
        if graph.types()["project"].dtype == "int16":
            return attrs.evolve(super().estimate(graph, options), latency_ms=0.5)
        wide = sum(kind.dtype == "int16" for kind in graph.types().values())
        return attrs.evolve(super().estimate(graph, options), latency_ms=1.0 + 0.25 * wide)


class WidePlugin:
    @hookimpl
    def carkp_backends(self) -> tuple[Backend, ...]:
        return (Backend("wide", ("wide-1",), "test_latency:Wide"),)


def session_of(folder: Path) -> Session:
    plugins = npu_toys.toy_plugins()
    plugins.register(WidePlugin(), name="wide")
    return open_session(str(folder / "toy.py"), march="wide-1", plugins=plugins)


def advised(found: Sensitivity, *names: str) -> Sensitivity:
    advice = (Advice("int16", "make it int16", "dict(type=...)"),)
    layers = [
        attrs.evolve(layer, hurts=True, advice=advice) if layer.name in names else layer for layer in found.layers
    ]
    return attrs.evolve(found, layers=tuple(layers))


@pytest.fixture
def found(folder: Path) -> tuple[Sensitivity, Any]:
    import torch

    network = open_source(opened(folder)).network
    return sensitivity(network, [(torch.rand(2, 3, 8, 8),)]), network


def costs(found: Sensitivity) -> dict[str, float | None]:
    return {layer.name: layer.advice[0].latency_ms for layer in found.layers if layer.advice}


def test_the_price_of_each_layer(folder: Path, found: tuple[Sensitivity, Any], monkeypatch: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "test_latency", sys.modules[__name__])
    plain, network = found
    priced = with_latencies(advised(plain, "stem", "depthwise", "head"), network, session_of(folder))
    assert costs(priced) == {"stem": 0.25, "depthwise": 0.25, "head": None}
    assert network.layer("stem").dtype == "int8"
    assert with_latencies(plain, network, session_of(folder)) is plain, "nobody needs int16"


def test_what_the_march_refuses_has_no_price(folder: Path, found: tuple[Sensitivity, Any], monkeypatch: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "test_latency", sys.modules[__name__])
    plain, network = found
    told = with_latencies(advised(plain, "depthwise", "project"), network, session_of(folder))
    assert costs(told) == {"depthwise": 0.25, "project": None}
    kept, refused = (layer.to_json()["advice"][0] for layer in told.layers if layer.advice)
    assert (kept["refused_by"], kept["text"]) == ("", "make it int16"), "refused in int8 already"
    assert refused["text"] == "int16 would help, but the march refuses it here: int8_only"
    assert (refused["refused_by"], refused["config"], refused["latency_ms"]) == ("int8_only", "", None)
