"""Estimates of the keypoint network and the two files, from a compiled program and from the bare graph."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carkp_bpu.hbm import counts
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import MARCHES, find_march
from carkp_bpu.perf.graph import ddr_bytes_lower_bound, layers_of
from carkp_bpu.perf.profile import profile_graph, profile_program, sram_peak_bytes
from carkp_bpu.perf.report import estimate, estimate_graph, write_graph_reports, write_reports
from carkp_bpu.perf.vendor import interval_ms, interval_series, vendor_details
from carkp_core.ir.graph import Graph

VENDOR_KEYS = {
    "BPU OPs per frame (effective)", "BPU OPs per run (effective)", "BPU PE number", "BPU core number", "BPU march",
    "DDR bytes per frame", "DDR bytes per run", "DDR bytes per second", "DDR megabytes per frame",
    "DDR megabytes per run", "DDR megabytes per second", "FPS", "HBDK version", "compiling options", "frame per run",
    "frame per second", "input features", "interval computing unit utilization",
    "interval computing units utilization", "interval loading bandwidth (megabytes/s)", "interval number",
    "interval storing bandwidth (megabytes/s)", "interval time (ms)", "latency (ms)", "latency (ms) by segments",
    "latency (us)", "layer details", "loaded bytes per frame", "loaded bytes per run", "model json CRC",
    "model json file", "model name", "model param CRC", "multicore sync time (ms)", "run per second",
    "runtime version", "stored bytes per frame", "stored bytes per run", "worst FPS",
}  # fmt: skip
MACS = 227_331_584


@pytest.fixture(scope="module")
def program(keypoint_graph: Graph) -> HbmProgram:
    """The network compiled for bayes, without the slow search."""
    from carkp_bpu.compiler.compile import compile_graph
    from carkp_core.backend import CompileOptions

    options = CompileOptions("bayes", "keypoints", Path("model.hbm"), Path(), opt="O1")
    return compile_graph(keypoint_graph, find_march("bayes"), options).program


def test_operations_are_twice_the_products_exactly(keypoint_graph: Graph, program: HbmProgram) -> None:
    assert sum(layer.ops for layer in layers_of(keypoint_graph)) == 2 * MACS
    assert profile_program(program, find_march("bayes")).ops == 2 * MACS


def test_the_lower_bound_counts_weights_parameters_and_ends_once(keypoint_graph: Graph) -> None:
    weights = sum(n.op.weight.size for n in keypoint_graph.nodes)  # type: ignore[attr-defined]
    channels = sum(n.op.bias.size for n in keypoint_graph.nodes)  # type: ignore[attr-defined]
    expected = weights + 9 * channels + 3 * 128 * 128 + 12 * 32 * 32
    assert ddr_bytes_lower_bound(keypoint_graph) == expected


def test_bytes_are_those_of_the_instructions(keypoint_graph: Graph, program: HbmProgram) -> None:
    report = estimate(program, "bayes", keypoint_graph)
    profile = profile_program(program, find_march("bayes"), keypoint_graph)
    moved = sum(map(counts.ddr_bytes, program.instructions))
    assert report.ddr_bytes_per_frame == moved + profile.fetch_bytes
    assert report.ddr_bytes_per_frame >= report.ddr_bytes_lower_bound
    assert report.sram_peak_bytes <= report.sram_bytes
    assert sram_peak_bytes(program) <= report.sram_bytes


def test_latency_is_the_device_time_and_the_launch(program: HbmProgram) -> None:
    report, march = estimate(program, "bayes"), find_march("bayes")
    assert report.latency_ms == pytest.approx(1e3 / report.fps + march.launch_us / 1e3)


@pytest.mark.parametrize("march", MARCHES, ids=lambda m: m.name)
def test_layers_without_a_compiler_fit_into_the_frame(march, keypoint_graph: Graph) -> None:  # type: ignore[no-untyped-def]
    profile = profile_graph(keypoint_graph, march)
    ends = [layer.end for layer in profile.layers]
    assert ends == sorted(ends)
    assert ends[-1] == profile.cycles
    least = max(sum(s.end - s.busy_start for s in profile.spans if s.engine == e) for e in ("conv", "dma_in"))
    assert profile.cycles >= least
    assert all(0 <= span.start <= span.busy_start <= span.end <= profile.cycles for span in profile.spans)


def test_the_published_network_is_met(keypoint_graph: Graph) -> None:
    report = estimate_graph(keypoint_graph, "bayes")
    assert report.latency_ms == pytest.approx(0.887, rel=0.1)
    assert 2 * report.fps == pytest.approx(3290, rel=0.1)


def test_only_some_nodes_can_be_estimated(keypoint_graph: Graph) -> None:
    names = [node.name for node in keypoint_graph.nodes]
    part = estimate_graph(keypoint_graph, "bayes", only=names[:10])
    assert part.fps > estimate_graph(keypoint_graph, "bayes").fps
    nothing = estimate_graph(keypoint_graph, "bayes", only=())
    assert (nothing.fps, nothing.ddr_bytes_per_frame) == (0.0, 0)


def test_the_vendors_keys_are_all_there(program: HbmProgram) -> None:
    details = estimate(program, "bayes").details
    summary = details["summary"]
    assert set(summary) == VENDOR_KEYS
    assert json.loads(json.dumps(details)) == details
    assert summary["FPS"] == pytest.approx(1e3 / summary["latency (ms)"], rel=1e-4)
    assert summary["DDR bytes per frame"] == summary["loaded bytes per frame"] + summary["stored bytes per frame"]
    assert summary["DDR megabytes per frame"] == pytest.approx(summary["DDR bytes per frame"] / 2**20, abs=1e-3)
    assert summary["BPU march"] == "bayes"


def test_layer_details_are_rows_of_four(keypoint_graph: Graph, program: HbmProgram) -> None:
    head, *rows = estimate(program, "bayes").details["summary"]["layer details"]
    assert head[:2] == ["layer", "ops"]
    assert len(rows) == len(keypoint_graph.nodes)
    assert sum(row[1] for row in rows) == 2 * MACS
    cost = re.compile(r"[\d.e+-]+ us \([\d.]+% of model\)")
    assert all(cost.fullmatch(cell) for row in rows for cell in row[2:])
    assert rows[0][0] == "net.backbone_stem_hz_conv2d"


def test_intervals_add_up(program: HbmProgram) -> None:
    profile = profile_program(program, find_march("bayes"))
    series = interval_series(profile)
    number, length_ms = series["interval number"], series["interval time (ms)"]
    assert number * length_ms >= profile.device_ms
    loads = series["interval loading bandwidth (megabytes/s)"]
    assert len(loads) == len(series["interval computing unit utilization"]) == number
    moved = sum(loads) * length_ms / 1e3 * 2**20
    assert moved == pytest.approx(profile.loaded_bytes - profile.fetch_bytes, rel=1e-3)
    assert max(loads) * 2**20 <= profile.march.ddr_bytes_per_s * 1.001


@given(st.floats(1e-4, 1e5))
def test_intervals_are_round_and_few(total_ms: float) -> None:
    length = interval_ms(total_ms)
    assert total_ms / length <= 60 * (1 + 1e-6)
    assert f"{length:e}"[0] in "125"


def test_reports_are_written(keypoint_graph: Graph, program: HbmProgram, tmp_path: Path) -> None:
    report = estimate(program, "bayes", keypoint_graph)
    json_path, html_path = write_reports(report, program, tmp_path / "out")
    assert json.loads(json_path.read_text()) == report.details
    page = html_path.read_text()
    assert "does not run on a board" in page
    assert f"{report.latency_ms:.3f}" in page
    assert not re.search(r"""(?:src|href)\s*=|@import|url\(|fetch\(""", page), "the page must need no other file"
    again = write_reports(report, program, tmp_path / "out")[1].read_text()
    assert again == page


def test_a_graph_that_was_refused_still_gets_its_reports(keypoint_graph: Graph, tmp_path: Path) -> None:
    only = [node.name for node in keypoint_graph.nodes[:5]]
    report = estimate_graph(keypoint_graph, "bayes-e", only=only)
    _, html_path = write_graph_reports(report, keypoint_graph, tmp_path, only)
    assert "The graph was not compiled" in html_path.read_text()


def test_names_cannot_break_out_of_the_page(keypoint_graph: Graph, tmp_path: Path) -> None:
    import attrs

    evil = attrs.evolve(keypoint_graph, name="<script>alert(1)</script>")
    report = estimate_graph(evil, "bayes")
    _, html_path = write_graph_reports(report, evil, tmp_path)
    assert "<script>alert" not in html_path.read_text()


def test_details_can_be_left_out(keypoint_graph: Graph) -> None:
    profile = profile_graph(keypoint_graph, find_march("bayes"))
    assert vendor_details(profile, layer_details=False)["summary"]["layer details"] == []
