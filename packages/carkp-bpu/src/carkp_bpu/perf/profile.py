"""A profile: what every layer of a program (or of a graph) costs one core, and the totals that follow.

Legend: cycles count from the start of a frame; a frame is one run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal
from zlib import crc32

from attrs import field, frozen

from carkp_bpu.hbm import counts, isa
from carkp_bpu.hbm.footprint import accesses
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march.base import March
from carkp_bpu.perf.graph import ddr_bytes_lower_bound, layers_of
from carkp_bpu.perf.layers import LayerTime, schedule
from carkp_bpu.perf.timeline import Span, Timeline, timeline
from carkp_core.backend import PerformanceReport
from carkp_core.ir.graph import Graph

Bound = Literal["compute", "memory", "overhead"]
Feature = tuple[str, tuple[int, ...], str]


@frozen
class LayerProfile:
    """One layer. Times are sums over its instructions, so engines that work in parallel count both."""

    name: str
    op: str
    source: str
    ops: int
    compute_cycles: int
    ddr_cycles: int
    loaded_bytes: int
    stored_bytes: int
    start: int
    end: int
    overhead_cycles: int

    @property
    def bound(self) -> Bound:
        """The largest of its engine's time, the DDR's and the overheads."""
        if self.overhead_cycles > max(self.compute_cycles, self.ddr_cycles):
            return "overhead"
        return "memory" if self.ddr_cycles > self.compute_cycles else "compute"


@frozen
class Profile:
    """A whole frame on one core."""

    name: str
    march: March
    #: How it was found out: a compiled program's instructions, or a graph's layers.
    basis: Literal["program", "graph"]
    opt: str
    sram_bytes: int
    sram_peak_bytes: int
    inputs: tuple[Feature, ...]
    layers: tuple[LayerProfile, ...]
    spans: tuple[Span, ...] = field(repr=False)
    #: Bytes that each span moves through DDR (0 for compute), in the order of ``spans``.
    span_bytes: tuple[int, ...] = field(repr=False)
    cycles: int
    fetch_bytes: int
    lower_bound_bytes: int
    graph_digest: str = ""
    constants_crc: int = 0
    #: What is wanted on chip at one time, as the compiler planned it.
    sram_live_bytes: int = 0

    @property
    def device_ms(self) -> float:
        """Time of a frame when frames follow each other."""
        return 1e3 * self.cycles / self.march.clock_hz

    @property
    def latency_ms(self) -> float:
        """Time of one frame alone, its launch included."""
        return self.device_ms + self.march.launch_us / 1e3

    @property
    def fps(self) -> float:
        """Frames a second of one core at saturation."""
        return 1e3 / self.device_ms if self.cycles else 0.0

    @property
    def loaded_bytes(self) -> int:
        """DDR bytes read for a frame, instructions included."""
        return self.fetch_bytes + sum(layer.loaded_bytes for layer in self.layers)

    @property
    def stored_bytes(self) -> int:
        """DDR bytes written for a frame."""
        return sum(layer.stored_bytes for layer in self.layers)

    @property
    def ops(self) -> int:
        """Operations of a frame."""
        return sum(layer.ops for layer in self.layers)

    @property
    def utilisation(self) -> float:
        """Share of the peak rate of products that the frame reaches, 0..1."""
        peak = 2 * self.march.macs_per_cycle * self.cycles
        return self.ops / peak if peak else 0.0

    def ms(self, cycles: float) -> float:
        """Cycles as milliseconds."""
        return 1e3 * cycles / self.march.clock_hz


def profile_program(program: HbmProgram, march: March, graph: Graph | None = None) -> Profile:
    """The profile of a compiled program, from the timeline of its instructions.

    ``graph`` is the model it was compiled from; without it the lower bound counts the program's own constants.
    """
    line = timeline(program, march)
    description = program.description
    ends = (*description.inputs, *description.outputs)
    own_bound = description.constant_bytes + sum(_port_bytes(port.shape, port.dtype) for port in ends)
    planned = description.plan.get("ddr_bytes_lower_bound", own_bound)
    return Profile(
        name=program.name,
        march=march,
        basis="program",
        opt=description.opt,
        sram_bytes=description.sram_bytes,
        sram_peak_bytes=description.plan.get("sram_peak_bytes") or sram_peak_bytes(program),
        sram_live_bytes=description.plan.get("sram_live_bound_bytes", 0),
        inputs=tuple((port.name, port.shape, port.dtype) for port in description.inputs),
        layers=tuple(_program_layers(program, line)),
        spans=line.spans,
        span_bytes=tuple(counts.ddr_bytes(program.instructions[span.index]) for span in line.spans),
        cycles=line.cycles,
        fetch_bytes=line.fetch_bytes,
        lower_bound_bytes=planned if graph is None else ddr_bytes_lower_bound(graph),
        graph_digest=program.graph_digest,
        constants_crc=crc32(program.constants),
    )


def profile_graph(
    graph: Graph, march: March, *, sram_bytes: int | None = None, only: Collection[str] | None = None
) -> Profile:
    """A quick profile of a graph, or of those nodes of it that a march runs, without compiling."""
    sram = sram_bytes or march.sram_bytes
    times = schedule(layers_of(graph, only), march, sram)
    spans, moved = _graph_spans(times)
    peak = max((t.layer.input_bytes + t.layer.output_bytes + t.layer.weight_bytes for t in times), default=0)
    return Profile(
        name=graph.name,
        march=march,
        basis="graph",
        opt="",
        sram_bytes=sram,
        sram_peak_bytes=min(peak, sram),
        inputs=tuple((i.name, i.type.shape, i.type.dtype) for i in graph.inputs),
        layers=tuple(_graph_layer(time, march) for time in times),
        spans=spans,
        span_bytes=moved,
        cycles=max((time.end for time in times), default=0),
        fetch_bytes=0,
        lower_bound_bytes=ddr_bytes_lower_bound(graph),
        graph_digest=graph.digest(),
    )


def performance_report(profile: Profile, details: Mapping[str, object]) -> PerformanceReport:
    """The record that core's commands read."""
    return PerformanceReport(
        march=profile.march.name,
        sram_bytes=profile.sram_bytes,
        latency_ms=profile.latency_ms,
        fps=profile.fps,
        ddr_bytes_per_frame=profile.loaded_bytes + profile.stored_bytes,
        ddr_bytes_lower_bound=profile.lower_bound_bytes,
        sram_peak_bytes=profile.sram_peak_bytes,
        sram_live_bytes=profile.sram_live_bytes,
        details=details,
    )


def sram_peak_bytes(program: HbmProgram) -> int:
    """One past the highest byte of SRAM that an instruction touches."""
    ends = (
        box.end
        for instruction in program.instructions
        for access in accesses(instruction)
        if access.space == "sram"
        for box in access.boxes
    )
    return max(ends, default=0)


def _program_layers(program: HbmProgram, line: Timeline) -> list[LayerProfile]:
    grouped: dict[int, list[Span]] = {}
    for span in line.spans:
        grouped.setdefault(span.layer, []).append(span)
    return [_program_layer(program, layer, spans) for layer, spans in sorted(grouped.items())]


def _program_layer(program: HbmProgram, layer: int, spans: list[Span]) -> LayerProfile:
    instructions = [program.instructions[span.index] for span in spans]
    macs = sum(map(counts.macs, instructions))
    dma = [(span, i) for span, i in zip(spans, instructions, strict=True) if isinstance(i, (isa.Load, isa.Store))]
    compute = [span for span in spans if not span.engine.startswith("dma")]
    known = program.debug.layers[layer] if program.debug.layers else None
    return LayerProfile(
        name=known.name if known else program.name,
        op=known.op if known else "",
        source=known.source if known else "",
        ops=2 * macs if macs else sum(map(counts.output_elements, instructions)),
        compute_cycles=sum(span.end - span.busy_start for span in compute),
        ddr_cycles=sum(span.end - span.busy_start for span, _ in dma),
        loaded_bytes=sum(counts.ddr_bytes(i) for span, i in dma if span.engine == "dma_in"),
        stored_bytes=sum(counts.ddr_bytes(i) for span, i in dma if span.engine == "dma_out"),
        start=min(span.start for span in spans),
        end=max(span.end for span in spans),
        overhead_cycles=sum(span.busy_start - span.start for span in compute),
    )


def _graph_layer(time: LayerTime, march: March) -> LayerProfile:
    layer = time.layer
    return LayerProfile(
        name=layer.name,
        op=layer.kind,
        source=layer.source,
        ops=layer.ops,
        compute_cycles=time.compute_cycles,
        ddr_cycles=time.ddr_cycles,
        loaded_bytes=time.loaded_bytes,
        stored_bytes=time.stored_bytes,
        start=min(time.load_start, time.start) if time.ddr_cycles else time.start,
        end=time.end,
        overhead_cycles=0 if layer.free else march.layer_cycles + march.instruction_cycles,
    )


def _graph_spans(times: list[LayerTime]) -> tuple[tuple[Span, ...], tuple[int, ...]]:
    spans: list[Span] = []
    moved: list[int] = []
    for layer, time in enumerate(times):
        if time.ddr_cycles:
            share = time.loaded_bytes / (time.loaded_bytes + time.stored_bytes)
            middle = time.load_start + round(share * time.ddr_cycles)
            for engine, begin, end, amount in (
                ("dma_in", time.load_start, middle, time.loaded_bytes),
                ("dma_out", middle, time.load_end, time.stored_bytes),
            ):
                if amount:
                    spans.append(Span(len(spans), engine, layer, begin, begin, end))
                    moved.append(amount)
        if time.compute_cycles:
            engine = "conv" if time.layer.conv else "vector"
            begin = time.end - time.compute_cycles
            spans.append(Span(len(spans), engine, layer, min(time.start, begin), begin, time.end))
            moved.append(0)
    return tuple(spans), tuple(moved)


def _port_bytes(shape: tuple[int, ...], dtype: str) -> int:
    size = isa.DTYPE_CODES[dtype]
    for extent in shape:
        size *= extent
    return size
