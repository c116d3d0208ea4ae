"""The page holds what was found, loads nothing, and its data is what the chart draws."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from compare_toys import change, graph_of, opened, other_pad, put

from carkp_core.compare.comparison import Comparison, compare_session
from carkp_core.compare.integers import Divergence, IntegerFindings, LayerCount, Witness
from carkp_core.compare.page import page_data, render_page, write_page


def data_of(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_page_of_integers(folder: Path) -> None:
    put(folder, change(graph_of(folder), "wide", other_pad))
    found = compare_session(opened(folder), ("calibration", "int_infer"), num_samples=2)
    write_page(found, folder / "made" / "page.html", "toy")
    html = (folder / "made" / "page.html").read_text()
    assert not re.search(r"(?:src|href)=|https?://(?!www\.w3\.org)", html)
    assert "First difference: wide" in html
    assert "padding_tlbr: (1, 1, 1, 1) and (0, 1, 2, 1)" in html
    data = data_of(html)
    assert data["first"] == "wide"
    assert [layer["name"] for layer in data["layers"]] == [
        "img", "stem", "wide", "narrow", "avg_pool2d", "up", "cat", "head",
    ]  # fmt: skip
    assert isinstance(found.findings, IntegerFindings)
    for shown, layer in zip(data["layers"], found.findings.layers, strict=True):
        assert shown["share"] == 100 * layer.differing / layer.elements
    assert data["layers"][2]["place"].startswith("compare_toys.py:")


def test_a_page_of_errors(folder: Path) -> None:
    found = compare_session(opened(folder), ("float", "hbm"), num_samples=2)
    html = render_page(found, "toy")
    data = data_of(html)
    assert not data["integer"]
    image, stem, *_ = data["layers"]
    assert (image["own"], image["own_db"], image["own_cosine"]) == (0.0, None, 1.0)
    assert (stem["inherited"], stem["inherited_db"]) == (0.0, None)
    assert 0 < stem["own"] < 10
    assert "Most error is added by" in html
    assert "First difference" not in html


def test_an_equal_pair(folder: Path) -> None:
    found = compare_session(opened(folder), ("calibration", "int_infer"), num_samples=1)
    data = page_data(found)
    assert data["cards"][0]["value"] == "equal"
    assert data["first"] is None
    assert "First difference" not in render_page(found)


def test_names_are_text_and_never_markup() -> None:
    name = '</script><b>"x"&'
    first = Divergence(name, "conv2d", name, name, (0,), Witness(1), Witness(2))
    findings = IntegerFindings((LayerCount(name, "conv2d", name, 4, 1, 1),), first)
    html = render_page(Comparison(name, "b", 1, findings, exact=True, notes=(name,)), name)
    assert "<b>" not in html
    assert data_of(html)["layers"][0]["name"] == name
