from __future__ import annotations

import pytest

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import DebugTable, InstructionInfo, LayerInfo
from carkp_bpu.hbm.description import Description
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import find_march
from carkp_bpu.perf.timeline import conv_work, instruction_cycles, timeline
from carkp_core.errors import BackendError

BAYES = find_march("bayes")
NONE = isa.NO_WAITS


def load(waits: isa.Four = NONE, count: int = 6400) -> isa.Load:
    return isa.Load(waits, 0, 0, (1, 1, 1, count), (0, 0, 0), (0, 0, 0))


def store(waits: isa.Four = NONE, count: int = 6400) -> isa.Store:
    return isa.Store(waits, 0, 0, (1, 1, 1, count), (0, 0, 0), (0, 0, 0))


def fill(waits: isa.Four = NONE, count: int = 1 << 16) -> isa.Fill:
    return isa.Fill(waits, (1, 1, 1, count), isa.View(0, 1, (0, 0, 0, 1)), 0)


def image(address: int, channels: int) -> isa.FeatureMap:
    return isa.FeatureMap(
        address=address, dtype=1, height=8, width=8, channels=channels, pixel_pitch=channels, row_pitch=8 * channels,
        ring_rows=8, first_row=0, first_column=0,
    )  # fmt: skip


def conv(rows: isa.Pair = (0, 8), waits: isa.Four = NONE, depth: int = 32, filters: int = 32) -> isa.Conv:
    into, made = image(0, depth), image(8192, filters)
    return isa.Conv(waits, into, made, None, 0, 0, rows, (0, 8), (3, 3), (1, 1), (1, 1), (1, 1), 1, -128, 127)


def program(*instructions: isa.Instruction, layers: tuple[int, ...] = ()) -> HbmProgram:
    description = Description(
        compiler="test", name="p", march="bayes", opt="O0", input_source="ddr", features=(), sram_bytes=1 << 20,
        constant_bytes=0, ddr_bytes=1 << 20, graph_digest="", options_digest="", inputs=(), outputs=(), plan={},
    )  # fmt: skip
    infos = tuple(InstructionInfo(layer, ()) for layer in layers or (0,) * len(instructions))
    named = tuple(LayerInfo(f"layer{i}", "conv2d", "") for i in range(max(layers, default=0) + 1))
    return HbmProgram(description, b"", instructions, DebugTable(layers=named, instructions=infos))


def test_an_engine_runs_its_instructions_one_after_the_other() -> None:
    first, second = timeline(program(load(), load()), BAYES).spans
    assert second.start == first.end
    assert second.cycles == BAYES.dma_cycles + instruction_cycles(load(), BAYES)


def test_engines_run_in_parallel() -> None:
    line = timeline(program(load(count=64000), conv()), BAYES)
    assert line.spans[0].start == line.spans[1].start == line.fetch_cycles
    assert line.cycles == max(span.end for span in line.spans)


def test_a_wait_holds_an_instruction_back() -> None:
    spans = timeline(program(load(), conv(waits=(1, 0, 0, 0)), store(waits=(0, 0, 1, 0))), BAYES).spans
    assert spans[1].start == spans[0].end
    assert spans[2].start == spans[1].end


def test_loads_and_stores_share_the_ddr() -> None:
    spans = timeline(program(load(count=640_000), store(count=640_000)), BAYES).spans
    into, out = spans
    assert into.start == out.start
    assert out.busy_start == into.end
    assert out.end - out.busy_start == instruction_cycles(store(count=640_000), BAYES)


def test_the_transfer_that_is_ready_first_gets_the_ddr_first() -> None:
    spans = timeline(program(fill(), load(waits=(0, 0, 0, 1), count=640), store(count=6400)), BAYES).spans
    assert spans[2].busy_start < spans[1].busy_start


def test_a_layer_is_set_up_once_on_an_engine() -> None:
    spans = timeline(program(conv((0, 4)), conv((4, 8)), conv(), layers=(0, 0, 1)), BAYES).spans
    setup = [span.busy_start - span.start for span in spans]
    tile = BAYES.instruction_cycles
    assert setup == [tile + BAYES.layer_cycles, tile, tile + BAYES.layer_cycles]


def test_a_program_that_never_ends_is_refused_by_name() -> None:
    with pytest.raises(BackendError, match="never ends") as caught:
        timeline(program(load(waits=(0, 0, 1, 0)), conv(waits=(1, 0, 0, 0))), BAYES)
    assert "instruction 0 on dma_in" in str(caught.value)


def test_tiles_of_full_blocks_add_up_to_the_layer() -> None:
    whole = instruction_cycles(conv((0, 8), depth=64, filters=64), BAYES)
    halves = sum(instruction_cycles(conv(rows, depth=64, filters=64), BAYES) for rows in ((0, 4), (4, 8)))
    assert halves == pytest.approx(whole, abs=2)
    assert conv_work(conv()).macs == 8 * 8 * 9 * 32 * 32


def test_the_instruction_stream_is_fetched_first() -> None:
    line = timeline(program(load()), BAYES)
    assert line.fetch_bytes > 0
    assert line.spans[0].start == line.fetch_cycles > 0
