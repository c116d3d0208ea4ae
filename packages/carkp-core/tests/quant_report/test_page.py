"""The page holds what was found, loads nothing, and its data is what the charts draw."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from report_toys import LAYERS, copied, reported

from carkp_core.quant.sensitivity.advice import Advice
from carkp_core.quant.sensitivity.histogram import HALF, Histogram, histogram_of
from carkp_core.quant_report.page import BARS, bars, render_page, write_page
from carkp_core.quant_report.report import QuantReport


def data_of(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture(scope="module")
def report(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantReport:
    return reported(copied(trained, tmp_path_factory.mktemp("page")), samples=8)


def test_the_page_is_self_contained_and_complete(report: QuantReport, tmp_path: Path) -> None:
    write_page(report, tmp_path / "made" / "report.html")
    html = (tmp_path / "made" / "report.html").read_text()
    assert not re.search(r"(?:src|href)=|https?://(?!www\.w3\.org)|@import|url\(", html)
    data = data_of(html)
    assert data["metric"] == "found"
    assert [layer["name"] for layer in data["layers"]] == LAYERS
    assert data["layers"][data["picked"]]["name"] == report.sensitivity.ranked()[0].name
    assert "No layer needs anything" in html
    for shown, layer in zip(data["layers"], report.sensitivity.layers, strict=True):
        assert shown["clipping"] == 100 * layer.clipping
        assert shown["threshold"] == [-128 * layer.scale, 127 * layer.scale]
        assert sum(shown["histogram"]["counts"]) == layer.histogram.total
    img, stem, *_ = data["layers"]
    assert (img["alone"], img["alone_db"]) == (0.0, None)
    assert stem["alone"] == pytest.approx(100 * 10 ** (-stem["alone_db"] / 20))
    assert stem["place"].startswith("report_toys.py:")


def test_what_the_script_reads_is_there(report: QuantReport) -> None:
    html = render_page(report)
    layer = data_of(html)["layers"][0]
    read = set(re.findall(r"\blayer\.([a-z_]+)", html.split("</script>")[1]))
    assert read - {"index"} <= set(layer)
    sorted_by = set(re.findall(r'data-key="([a-z_]+)"', html))
    assert sorted_by - {"index"} <= set(layer)
    for ident in re.findall(r'byId\("([a-z]+)"\)', html):
        assert f'id="{ident}"' in html


def test_advice_is_listed_with_its_config_and_price(report: QuantReport) -> None:
    advice = (Advice("int16", "too few bits", 'dict(type="Int16")', latency_ms=0.125),)
    layers = list(report.sensitivity.layers)
    layers[2] = attrs.evolve(layers[2], hurts=True, advice=advice)
    html = render_page(attrs.evolve(report, sensitivity=attrs.evolve(report.sensitivity, layers=tuple(layers))))
    assert "No layer needs anything" not in html
    assert "too few bits" in html
    assert "dict(type=&#34;Int16&#34;)" in html
    assert "+0.125 ms" in html
    data = data_of(html)
    assert data["picked"] == 2
    assert data["layers"][2]["advice"] == [["int16", "too few bits", 0.125]]


def test_a_spread_loss_asks_for_training(report: QuantReport) -> None:
    lossy = attrs.evolve(report.sensitivity, metrics_float={"found": 0.9}, metrics_quantized={"found": 0.8})
    html = render_page(attrs.evolve(report, sensitivity=lossy))
    assert "--stage qat" in html
    assert "+10.00" in html


def test_what_is_no_share_is_not_shown_in_points(report: QuantReport) -> None:
    layers = [attrs.evolve(layer, loss_alone=0.5) for layer in report.sensitivity.layers]
    far = {"metrics_float": {"distance": 2.0}, "metrics_quantized": {"distance": 2.5}, "lower_is_better": True}
    html = render_page(attrs.evolve(report, sensitivity=attrs.evolve(report.sensitivity, layers=tuple(layers), **far)))
    data = data_of(html)
    assert data["layers"][0]["loss"] == 0.5
    assert data["metric_unit"] == "distance (lower is better)"
    assert "points of" not in html
    assert ">+0.5<" in html


def test_names_are_text_and_never_markup(report: QuantReport) -> None:
    name = '</script><b>"x"&'
    layers = [attrs.evolve(layer, name=name, source=name) for layer in report.sensitivity.layers]
    found = attrs.evolve(report.sensitivity, layers=tuple(layers))
    html = render_page(attrs.evolve(report, task=name, notes=(name,), sensitivity=found))
    assert "<b>" not in html
    assert data_of(html)["layers"][0]["name"] == name


def test_without_metrics_there_are_no_columns_of_them(report: QuantReport) -> None:
    bare = attrs.evolve(report.sensitivity, metrics_float={}, metrics_quantized={})
    html = render_page(attrs.evolve(report, sensitivity=bare))
    assert 'data-key="loss"' not in html
    assert data_of(html)["metric"] == ""


def test_bars_cover_the_values_and_keep_the_count() -> None:
    values = torch.cat([torch.zeros(7), torch.linspace(-3.0, 11.0, 500)])
    found = bars(histogram_of(values, 11.0), -3.0, 11.0)
    assert len(found["counts"]) <= BARS
    assert sum(found["counts"]) == 507
    assert found["left"] <= -3.0 < found["left"] + found["width"]
    assert found["left"] + len(found["counts"]) * found["width"] >= 11.0
    zero_bar = int(-found["left"] / found["width"])
    assert max(found["counts"][zero_bar - 1 : zero_bar + 2]) >= 7
    assert bars(Histogram(1.0, np.zeros(2 * HALF, np.int64), 0), 0.0, 0.0)["counts"] == [0]
