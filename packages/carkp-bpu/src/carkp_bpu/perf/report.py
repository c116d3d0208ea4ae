"""Estimates and their two files: ``perf.json`` under the vendor's keys and ``perf.html``, one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import find_march
from carkp_bpu.march.base import March
from carkp_bpu.perf.page import page_data
from carkp_bpu.perf.profile import Profile, performance_report, profile_graph, profile_program
from carkp_bpu.perf.vendor import vendor_details
from carkp_core.backend import PerformanceReport
from carkp_core.ir.graph import Graph


def estimate(
    program: HbmProgram, march: str | March, graph: Graph | None = None, *, layer_details: bool = True
) -> PerformanceReport:
    """The performance of a compiled program on one core.

    Parameters
    ----------
    graph:
        The model it was compiled from, for the exact lower bound of DDR bytes.
    layer_details:
        Whether the details hold a row for each layer.
    """
    return report_of(profile_program(program, _table(march), graph), layer_details)


def estimate_graph(
    graph: Graph, march: str | March, *, sram_bytes: int | None = None, only: Collection[str] | None = None
) -> PerformanceReport:
    """The performance of a graph that isn't compiled, or of the nodes ``only`` that a march runs of a refused one."""
    return report_of(profile_graph(graph, _table(march), sram_bytes=sram_bytes, only=only))


def report_of(profile: Profile, layer_details: bool = True) -> PerformanceReport:
    """The record that core's commands read, with the vendor-keyed details."""
    return performance_report(profile, vendor_details(profile, layer_details=layer_details))


def write_reports(report: PerformanceReport, program: HbmProgram, out_dir: Path) -> tuple[Path, Path]:
    """Write ``perf.json`` and ``perf.html`` of a program; returns their paths."""
    profile = profile_program(program, find_march(report.march))
    return _write(report, profile, out_dir)


def write_graph_reports(
    report: PerformanceReport, graph: Graph, out_dir: Path, only: Collection[str] | None = None
) -> tuple[Path, Path]:
    """Write ``perf.json`` and ``perf.html`` of a graph that isn't compiled; returns their paths."""
    profile = profile_graph(graph, find_march(report.march), sram_bytes=report.sram_bytes, only=only)
    return _write(report, profile, out_dir)


def render_page(report: PerformanceReport, profile: Profile) -> str:
    """The page's HTML: everything inside, nothing fetched."""
    import jinja2

    source = resources.files("carkp_bpu.perf").joinpath("template.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(source).render(**page_data(report, profile)) + "\n"


def _write(report: PerformanceReport, profile: Profile, out_dir: Path) -> tuple[Path, Path]:
    out_dir.mkdir(parents=True, exist_ok=True)
    json_path, html_path = out_dir / "perf.json", out_dir / "perf.html"
    _replace(json_path, json.dumps(_plain(report.details), indent=2) + "\n")
    _replace(html_path, render_page(report, profile))
    return json_path, html_path


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    return dict(details)


def _table(march: str | March) -> March:
    return find_march(march) if isinstance(march, str) else march
