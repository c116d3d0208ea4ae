"""What ``template.html`` shows, computed from a profile: texts for the cards, plain data for the charts."""

from __future__ import annotations

import math
from typing import Any

import attrs

from carkp_bpu.march.base import Fact, March
from carkp_bpu.perf.profile import LayerProfile, Profile
from carkp_bpu.perf.vendor import MEGA, compiling_options, interval_series, own_layer
from carkp_core.backend import PerformanceReport

ENGINES = ("dma_in", "conv", "vector", "dma_out")
ENGINE_WORDS = {"dma_in": "DDR load", "conv": "convolution", "vector": "vector", "dma_out": "DDR store"}
#: Stretches of one layer on one engine closer than this share of the frame are drawn as one.
MERGE_SHARE = 1 / 4000


def page_data(report: PerformanceReport, profile: Profile) -> dict[str, Any]:
    """The template's variables."""
    return {
        "name": profile.name,
        "march": profile.march.name,
        "chips": profile.march.chips,
        "note": profile.march.note,
        "basis": profile.basis,
        "options": compiling_options(profile),
        "inputs": [f"{name} {'x'.join(map(str, shape))} {dtype}" for name, shape, dtype in profile.inputs],
        "cards": _cards(report, profile),
        "busy": _busy(profile),
        "facts": _facts(profile.march),
        "data": {
            "total_us": 1e3 * profile.device_ms,
            "engines": [ENGINE_WORDS[name] for name in ENGINES],
            "stretches": _stretches(profile),
            "layers": [_layer(layer, profile) for layer in profile.layers],
            "intervals": _intervals(profile),
            "roof": _roof(profile),
        },
    }


def _cards(report: PerformanceReport, profile: Profile) -> list[dict[str, str]]:
    moved, least = report.ddr_bytes_per_frame, report.ddr_bytes_lower_bound
    ratio = f"{moved / least:.2f} x the least possible, {_bytes(least)}" if least else ""
    launch = profile.march.launch_us
    memory = f"of {_bytes(report.sram_bytes)} on-chip memory"
    rate, most = moved * report.fps / 1e9, profile.march.ddr_bytes_per_s / 1e9
    return [
        _card("Latency", f"{report.latency_ms:.3f}", "ms", f"one frame alone, {launch:.0f} us of it launch"),
        _card("Throughput", f"{report.fps:,.0f}", "frames/s", f"one core, {profile.device_ms:.3f} ms a frame"),
        _card("DDR traffic of a frame", _bytes(moved), "", ratio),
        _card("DDR rate, average", f"{rate:.2f}", "GB/s", f"of {most:.2f} GB/s"),
        _card("Utilisation", f"{100 * profile.utilisation:.1f}", "%", f"{profile.ops / 1e9:.3f} G operations a frame"),
        _card("On-chip peak", _bytes(report.sram_peak_bytes), "", memory),
    ]


def _card(title: str, value: str, unit: str, text: str) -> dict[str, str]:
    return {"title": title, "value": value, "unit": unit, "text": text}


def _busy(profile: Profile) -> list[dict[str, Any]]:
    """How much of the frame each resource is busy, and how many layers each one bounds."""
    rows = []
    for title, engines, colour in (
        ("DDR", ("dma_in", "dma_out"), "ddr"),
        ("Convolution engine", ("conv",), "conv"),
        ("Vector engine", ("vector",), "vector"),
    ):
        cycles = sum(span.end - span.busy_start for span in profile.spans if span.engine in engines)
        share = 100 * cycles / profile.cycles if profile.cycles else 0.0
        rows.append({"title": title, "share": min(share, 100.0), "colour": colour})
    return rows


def _stretches(profile: Profile) -> list[list[float]]:
    """[engine, layer, start us, length us], neighbours of one layer merged."""
    gap = profile.cycles * MERGE_SHARE
    index_of = {layer: index for index, layer in enumerate(sorted({span.layer for span in profile.spans}))}
    merged: list[list[float]] = []
    for engine in ENGINES:
        mine = sorted((s for s in profile.spans if s.engine == engine), key=lambda s: s.busy_start)
        for span in mine:
            row = index_of[span.layer] if profile.basis == "program" else span.layer
            last = merged[-1] if merged else None
            if last and last[:2] == [ENGINES.index(engine), row] and span.busy_start - last[3] <= gap:
                last[3] = max(last[3], span.end)
            else:
                merged.append([ENGINES.index(engine), row, span.busy_start, span.end])
    us = 1e6 / profile.march.clock_hz
    return [[e, row, round(begin * us, 3), round((end - begin) * us, 3)] for e, row, begin, end in merged]


def _layer(layer: LayerProfile, profile: Profile) -> dict[str, Any]:
    plain = own_layer(layer, profile)
    module, _, place = layer.source.partition(" (")
    return plain | {"module": module, "place": place.rstrip(")").rsplit("/", 1)[-1]}


def _intervals(profile: Profile) -> dict[str, Any]:
    series = interval_series(profile)
    per_unit = MEGA / 1e9
    return {
        "ms": series["interval time (ms)"],
        "conv": series["interval computing unit utilization"],
        "load": [round(v * per_unit, 4) for v in series["interval loading bandwidth (megabytes/s)"]],
        "store": [round(v * per_unit, 4) for v in series["interval storing bandwidth (megabytes/s)"]],
    }


def _roof(profile: Profile) -> dict[str, Any]:
    """Peak rates, and for each layer with products: operations a DDR byte and achieved giga-operations a second."""
    march, points = profile.march, []
    for index, layer in enumerate(profile.layers):
        moved = layer.loaded_bytes + layer.stored_bytes
        cycles = max(layer.compute_cycles, layer.ddr_cycles)
        if layer.op in ("conv2d", "conv_transpose2d") and moved and cycles:
            points.append([index, layer.ops / moved, layer.ops * march.clock_hz / cycles / 1e9])
    return {
        "peak": 2 * march.macs_per_cycle * march.clock_hz / 1e9,
        "reached": 2 * march.macs_per_cycle * march.costs.conv_efficiency.value * march.clock_hz / 1e9,
        "rate": march.ddr_bytes_per_s / 1e9,
        "points": points,
    }


def _facts(march: March) -> list[dict[str, Any]]:
    """The machine's numbers behind the estimate, each with its source."""
    return [
        {
            "name": name.replace("_", " "),
            "value": _number(name, fact.value),
            "source": fact.source,
            "assumption": fact.assumption,
        }
        for record in (march.hardware, march.costs)
        for name, fact in attrs.asdict(record, recurse=False).items()
        if isinstance(fact, Fact)
    ]


def _number(name: str, value: float) -> str:
    if name == "sram_bytes":
        return _bytes(int(value))
    if name == "ddr_bytes_per_s":
        return f"{value / 1e9:.2f} GB/s"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _bytes(value: int) -> str:
    """Bytes with a binary unit, three digits."""
    if value < 1024:
        return f"{value} B"
    power = min(3, int(math.log(value, 1024)))
    return f"{value / 1024**power:.3g} {('KiB', 'MiB', 'GiB')[power - 1]}"
