"""A comparison as one self-contained page: a chart over the layers and a table that sorts."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from carkp_core.compare.comparison import Comparison
from carkp_core.compare.floats import Error, FloatFindings, LayerError
from carkp_core.compare.integers import Divergence, IntegerFindings, LayerCount


def write_page(found: Comparison, path: Path, title: str = "") -> None:
    """Write the page: to a temporary name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(render_page(found, title), encoding="utf-8")
    temporary.replace(path)


def render_page(found: Comparison, title: str = "") -> str:
    """The page's HTML. ``title`` is the model's name."""
    source = resources.files("carkp_core.compare").joinpath("template.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(source).render(**page_data(found, title)) + "\n"


def page_data(found: Comparison, title: str = "") -> dict[str, Any]:
    """The template's variables."""
    findings = found.findings
    integer = isinstance(findings, IntegerFindings)
    only = [(found.a, found.only_a), (found.b, found.only_b)]
    return {
        "title": title or "model",
        "a": found.a,
        "b": found.b,
        "images": found.images,
        "integer": integer,
        "notes": [*found.notes, *(f"only in {side}: {', '.join(names)}" for side, names in only if names)],
        "cards": _integer_cards(found, findings) if isinstance(findings, IntegerFindings) else _float_cards(findings),
        "first": _first(findings.first, found) if isinstance(findings, IntegerFindings) else None,
        "data": {
            "integer": integer,
            "first": findings.first.layer if isinstance(findings, IntegerFindings) and findings.first else None,
            "layers": [
                _counted(layer) if isinstance(layer, LayerCount) else _errors(layer) for layer in findings.layers
            ],
        },
    }


def _integer_cards(found: Comparison, findings: IntegerFindings) -> list[dict[str, str]]:
    layers = [layer for layer in findings.layers if layer.differing]
    largest = max((layer.max_difference or 0 for layer in layers), default=0)
    share = findings.differing / findings.elements if findings.elements else 0.0
    verdict = "equal" if not layers else "different" if found.exact else "near"
    tone = "good" if not layers else "bad" if found.exact else "warn"
    return [
        _card("The two are", verdict, "no element differs" if not layers else f"{100 * share:.3g} % differ", tone),
        _card("Differing elements", f"{findings.differing:,}", f"of {findings.elements:,}"),
        _card("Layers that differ", f"{len(layers)}", f"of {len(findings.layers)} tensors"),
        _card("Largest difference", f"{largest}", "steps of the tensor's scale"),
    ]


def _float_cards(findings: FloatFindings) -> list[dict[str, str]]:
    worst, last = findings.worst, findings.layers[-1]
    cards = [_card("At the end", _db(last.total), f"cosine {last.total.cosine:.5f}, {last.name}")]
    if worst is not None and worst.own is not None:
        cards.append(_card("Most error is added by", _db(worst.own), worst.name))
    if last.own is not None and last.inherited is not None:
        cards.append(_card("The last layer's own", _db(last.own), f"inherited: {_db(last.inherited)}"))
    return cards


def _card(title: str, value: str, text: str, tone: str = "") -> dict[str, str]:
    return {"title": title, "value": value, "text": text, "tone": tone}


def _first(first: Divergence | None, found: Comparison) -> dict[str, Any] | None:
    if first is None:
        return None
    return {
        "layer": first.layer,
        "op": first.op,
        "source": first.source,
        "place": f"element [{', '.join(map(str, first.index))}] of {first.image}",
        "rows": first.rows(),
        "explanation": first.explanation(found.a, found.b),
    }


def _counted(layer: LayerCount) -> dict[str, Any]:
    share = 100.0 * layer.differing / layer.elements if layer.elements else 0.0
    return _place(layer) | {
        "differing": layer.differing,
        "elements": layer.elements,
        "share": share,
        "largest": layer.max_difference or 0,
    }


def _errors(layer: LayerError) -> dict[str, Any]:
    named = {"own": layer.own, "inherited": layer.inherited, "total": layer.total}
    plain: dict[str, Any] = {"elements": layer.elements}
    for name, error in named.items():
        plain[name] = None if error is None else _finite(100.0 * error.relative)
        plain[f"{name}_db"] = None if error is None else _finite(error.sqnr_db)
        plain[f"{name}_cosine"] = None if error is None else error.cosine
    return _place(layer) | plain


def _place(layer: LayerCount | LayerError) -> dict[str, Any]:
    """Name, operator, module path and the last part of the file's name."""
    module, _, place = layer.source.partition(" (")
    return {"name": layer.name, "op": layer.op, "module": module, "place": place.rstrip(")").rsplit("/", 1)[-1]}


def _db(error: Error) -> str:
    return error.decibels if error.sqnr_db == math.inf else f"{error.decibels} dB"


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
