"""A report as one self-contained page: bars of each layer, a histogram of the picked one, a table that sorts."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from carkp_core.ir.arithmetic import INT_RANGE
from carkp_core.quant.sensitivity.findings import LayerFindings, Sensitivity
from carkp_core.quant.sensitivity.histogram import Histogram
from carkp_core.quant_report.report import QuantReport

#: Bars of a histogram, at most.
BARS = 120


def write_page(report: QuantReport, path: Path) -> None:
    """Write the page: to a temporary name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(render_page(report), encoding="utf-8")
    temporary.replace(path)


def render_page(report: QuantReport) -> str:
    """The page's HTML."""
    source = resources.files("carkp_core.quant_report").joinpath("template.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(source).render(**page_data(report)) + "\n"


def page_data(report: QuantReport) -> dict[str, Any]:
    """The template's variables."""
    found = report.sensitivity
    ranked = found.ranked()
    return {
        "title": report.task or "model",
        "stage": report.stage,
        "march": report.march,
        "samples": found.samples,
        "metric": found.metric,
        "metric_unit": metric_unit(found),
        "notes": list(report.notes),
        "spread": found.spread,
        "cards": _cards(found, ranked),
        "advised": [{"name": layer.name, "advice": layer.advice} for layer in ranked if layer.advice],
        "data": {
            "metric": found.metric,
            "metric_unit": metric_unit(found),
            "in_points": found.in_points,
            "picked": found.layers.index(ranked[0]) if ranked else 0,
            "layers": [_row(layer, _factor(found)) for layer in found.layers],
        },
    }


def _cards(found: Sensitivity, ranked: list[LayerFindings]) -> list[dict[str, str]]:
    cards = []
    if found.metric:
        before, after = found.metrics_float[found.metric], found.metrics_quantized[found.metric]
        tone = "bad" if found.loss > found.loss_bound else "good"
        cards.append(_card(f"{found.metric}, quantized", f"{after:.4f}", f"{before:.4f} in float", tone))
        lost = f"{100 * found.loss:+.2f}" if found.in_points else f"{found.loss:+.4g}"
        of = "points of it" if found.in_points else "lower is better" if found.lower_is_better else "of it"
        cards.append(_card("Lost", lost if found.loss else "0", of, tone))
    cards.append(_card("Signal to noise at the outputs", _db(found.network_db), "the whole network quantized"))
    hurting = sum(layer.hurts for layer in found.layers)
    cards.append(_card("Layers that hurt", str(hurting), f"of {len(found.layers)}", "bad" if hurting else "good"))
    if ranked and ranked[0].share:
        cards.append(_card("Most noise is made by", f"{100 * ranked[0].share:.0f} %", ranked[0].name))
    return cards


def metric_unit(found: Sensitivity) -> str:
    """What losses and gains are counted in."""
    if found.in_points:
        return f"points of {found.metric}"
    return f"{found.metric} (lower is better)" if found.lower_is_better else found.metric


def _factor(found: Sensitivity) -> int:
    """A share is shown in hundredths."""
    return 100 if found.in_points else 1


def _card(title: str, value: str, text: str, tone: str = "") -> dict[str, str]:
    return {"title": title, "value": value, "text": text, "tone": tone}


def _row(layer: LayerFindings, factor: int) -> dict[str, Any]:
    _, _, place = layer.source.partition(" (")
    highest = INT_RANGE[layer.dtype][1]
    return {
        "name": layer.name,
        "op": layer.op,
        "place": place.rstrip(")").rsplit("/", 1)[-1],
        "dtype": layer.dtype,
        "observer": layer.observer,
        "scale": layer.scale,
        "low": layer.low,
        "high": layer.high,
        "threshold": [-(highest + 1) * layer.scale, layer.threshold],
        "clipping": 100 * layer.clipping,
        "used": 100 * layer.utilisation,
        "entropy": layer.entropy_bits,
        "share": 100 * layer.share,
        "alone": _percent(layer.network_alone_db),
        "alone_db": _finite(layer.network_alone_db),
        "without_db": _finite(layer.network_without_db),
        "own": _percent(layer.alone_db),
        "own_db": _finite(layer.alone_db),
        "accumulated": _percent(layer.accumulated_db),
        "accumulated_db": _finite(layer.accumulated_db),
        "weights_db": _finite(layer.weights_db),
        "output_db": _finite(layer.output_db),
        "loss": _finite(factor * layer.loss_alone),
        "gain": _finite(factor * layer.gain_without),
        "imbalance": layer.channel_imbalance,
        "equalized": [layer.output_equalized_db, layer.weights_equalized_db],
        "candidates": [[c.observer, c.threshold, _finite(c.gain_db)] for c in layer.candidates],
        "offers": [[o.name, o.threshold, _finite(o.error)] for o in layer.offers],
        "hurts": layer.hurts,
        "advice": [[a.action, a.text, a.latency_ms] for a in layer.advice],
        "histogram": bars(layer.histogram, layer.low, layer.high),
    }


def bars(histogram: Histogram, low: float, high: float) -> dict[str, Any]:
    """Between the extremes at most ``BARS`` counts: ``left`` is where the first begins, ``width`` that of each."""
    counts = histogram.counts.copy()
    half = len(counts) // 2
    counts[half] += histogram.zeros  # zeros belong to the bin that begins at 0
    used = np.flatnonzero(counts)
    first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (half, half + 1)
    group = max(1, math.ceil((last - first) / BARS))
    padded = np.pad(counts[first:last], (0, -(last - first) % group))
    return {
        "left": (first - half) * histogram.width,
        "width": group * histogram.width,
        "counts": padded.reshape(-1, group).sum(axis=1).tolist(),
        "low": low,
        "high": high,
    }


def _percent(ratio_db: float) -> float | None:
    """The error's RMS over the signal's, in percent."""
    return 0.0 if ratio_db == math.inf else _finite(100.0 * 10.0 ** (-ratio_db / 20.0))


def _db(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f} dB"


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
