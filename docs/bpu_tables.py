"""``isa.md``, and the tables of ``bpu.md``: marches with their sources, measurements beside estimates."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import attrs
from hooks_page import markdown

from carkp_bpu.hbm import forms, isa
from carkp_bpu.march import MARCHES, find_march
from carkp_bpu.march.base import Costs, Fact, Hardware, March
from carkp_bpu.perf.layers import schedule
from carkp_bpu.perf.measurements import MEASUREMENTS, Measurement
from carkp_bpu.perf.networks import NETWORKS

#: What each number of a march means.
MEANINGS = {
    "clock_hz": "clock, Hz",
    "macs_per_cycle": "int8 products a cycle, all lanes busy",
    "int16_mac_divisor": "divisor of that rate for int16",
    "mac_pixels": "a step of the MAC array: pixels along W",
    "mac_in_channels": "a step of the MAC array: input channels",
    "mac_out_channels": "a step of the MAC array: output channels",
    "sram_bytes": "on-chip memory, bytes",
    "ddr_bytes_per_s": "DDR bandwidth of one core, bytes/s",
    "ddr_burst_bytes": "DDR burst, bytes",
    "channel_align": "channels on chip are a multiple of",
    "width_align": "width on chip is best a multiple of",
    "cores": "cores on the chip",
    "conv_efficiency": "share of the MAC rate that a dense convolution reaches",
    "depthwise_macs_per_cycle": "products a cycle of a depthwise convolution",
    "feature_bytes_per_cycle": "feature map bytes an engine moves a cycle",
    "layer_cycles": "cycles before each layer",
    "instruction_cycles": "cycles before each instruction",
    "dma_cycles": "cycles to set up a transfer",
    "launch_us": "launch of a run, microseconds",
}

TYPES = {forms.U8: "uint8", forms.U16: "uint16", forms.U32: "uint32", forms.U64: "uint64", forms.I32: "int32"}

ABOUT_ISA = """\
# Instruction set

This page is generated from `carkp_bpu/hbm/isa.py` (`python docs/generate.py`); do not edit it. [The BPU
backend](bpu.md) describes the machine, memory layouts and the container; this is the list of instructions.

A record is opcode (uint8), 0 (uint8), length of the whole record (uint16, a multiple of 4, zero padded), then the
fields in the order of the tables, little endian, without alignment. `waits` holds, for each of the engines
{engines}, how many of its instructions must be complete before this one starts."""


def marches_table() -> str:
    """Sizes and costs of every march; `*` marks what is not published."""
    lines = [f"| | {' | '.join(march.name for march in MARCHES)} |", "| --- |" + " ---: |" * len(MARCHES)]
    lines.append(f"| chips | {' | '.join(march.chips for march in MARCHES)} |")
    for group, record in (("hardware", Hardware), ("costs", Costs)):
        for field in attrs.fields(record):
            cells = (_number(getattr(getattr(march, group), field.name)) for march in MARCHES)
            lines.append(f"| {MEANINGS[field.name]} (`{field.name}`) | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Sources:", "", *_sources()]).rstrip()


def _number(fact: Fact[Any]) -> str:
    value = fact.value
    text = f"{value:.3g}" if value < 100 or value >= 1e9 else f"{value:,.0f}"
    return f"{text} *" if fact.assumption else text


def _sources() -> Iterator[str]:
    """For each march, its sources and which numbers each gave."""
    for march in MARCHES:
        by_source: dict[str, list[str]] = {}
        for group, record in (("hardware", Hardware), ("costs", Costs)):
            for field in attrs.fields(record):
                by_source.setdefault(getattr(getattr(march, group), field.name).source, []).append(field.name)
        yield f"**{march.name}**\n"
        yield from (f"- {source}: {', '.join(f'`{n}`' for n in names)}" for source, names in by_source.items())
        yield ""


def measurements_table() -> str:
    """Published device times beside the layer schedule's estimate with the shipped constants."""
    lines = ["| march | network | measured, ms | estimated, ms | error | |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for row in MEASUREMENTS:
        estimated = estimated_ms(row, find_march(row.march))
        error = f"{estimated / row.device_ms - 1:+.0%}"
        note = "not in the fit" if row.held_out else ""
        lines.append(f"| {row.march} | {row.network} | {row.device_ms:.3f} | {estimated:.3f} | {error} | {note} |")
    return "\n".join(lines)


def estimated_ms(row: Measurement, march: March) -> float:
    """Device time of a row's network."""
    return 1e3 * schedule(NETWORKS[row.network](), march)[-1].end / march.clock_hz


def isa_page() -> str:
    """``isa.md`` as a whole."""
    parts = [ABOUT_ISA.format(engines=", ".join(f"`{engine}`" for engine in isa.ENGINES)), "## Records"]
    parts += [_record(record) for record in (isa.FeatureMap, isa.View, isa.Term, isa.Residual)]
    for engine in isa.ENGINES:
        parts.append(f"## Engine `{engine}`")
        parts += [_record(kind, f", opcode {kind.OPCODE}") for kind in isa.INSTRUCTIONS if engine == kind.ENGINE]
    return "\n\n".join(parts) + "\n"


def _record(record: type, note: str = "") -> str:
    rows = [f"| `{name}` | {_form(form)} |" for name, form in forms.forms(record)]
    text = markdown(inspect.getdoc(record) or "")
    return "\n".join([f"### {record.__name__}{note}", "", text, "", "| field | stored as |", "| --- | --- |", *rows])


def _form(form: forms.Form) -> str:
    if isinstance(form, forms.Scalar):
        return TYPES[form.code]
    if isinstance(form, forms.Each):
        return f"{form.count} x {TYPES[form.code]}"
    name = f"[{form.record.__name__}](#{form.record.__name__.lower()})"
    if isinstance(form, forms.Optional):
        return f"uint8 0 or 1, then {name} when 1"
    return f"uint8 count, then so many {name}" if isinstance(form, forms.Many) else name
