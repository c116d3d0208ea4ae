"""nash-e (J6E, S100) and nash-m (J6M, S100P). Public tables of nash's limits are partial: the rest is bayes's."""

from __future__ import annotations

import attrs

from carkp_bpu.march.base import (
    Costs,
    Fact,
    Hardware,
    March,
    Range,
    TensorLimits,
    assumed,
    published,
    reassumed,
)
from carkp_bpu.march.bayes import CONV, CONV_TRANSPOSE, ELEMENTWISE, INT8_INT16, POOL, SHAPE

_j6 = published("vendor J6 documentation, partial operator notes")
_chip = published("vendor data sheets, S100 / S100P")
_derived = published("the vendor's TOPS figure, 2 operations a MAC, the published clock")
_hint = published("vendor efficiency hints: W multiple of 8, C multiple of 4")
_l2m = assumed("the vendor's default of 6 MiB of L2 memory a core on nash-p; nash-e and nash-m are not published")
_share = assumed("not published; carkp gives one core a quarter of the chip's peak DDR bandwidth")
_hidden = assumed("not published; chosen by carkp")
_open = assumed("no limit published; only the machine model's own bound")
_yolo = assumed("chosen by carkp from the slope of published YOLO latencies over GFLOP on S100 and S100P")
_FROM_BAYES = "nash's table is not public in full; bayes's limit is assumed"

TENSOR = TensorLimits(
    ranks=_j6(Range(2, 10)),
    batch=_open(4096),
    side=_open(65536),
    tensor_bytes=_j6(2 << 30),
    graph_ends=_j6(512),
    dtypes=_j6(INT8_INT16),
)


def _hardware(clock_hz: int, macs_per_cycle: int, ddr_bytes_per_s: float) -> Hardware:
    return Hardware(
        clock_hz=_chip(clock_hz),
        macs_per_cycle=_derived(macs_per_cycle),
        int16_mac_divisor=_hidden(4),
        mac_pixels=_hidden(8),
        mac_in_channels=_hidden(32),
        mac_out_channels=_hidden(64),
        sram_bytes=_l2m(6 << 20),
        ddr_bytes_per_s=_share(ddr_bytes_per_s),
        ddr_burst_bytes=_hidden(64),
        channel_align=_hint(4),
        width_align=_hint(8),
        cores=_chip(1),
    )


def _march(name: str, chips: str, hardware: Hardware, launch_us: Fact[float]) -> March:
    return March(
        name=name,
        chips=chips,
        hardware=hardware,
        costs=Costs(
            conv_efficiency=_yolo(0.25),
            depthwise_macs_per_cycle=_hidden(2048.0),
            feature_bytes_per_cycle=_hidden(512.0),
            layer_cycles=_hidden(1500),
            instruction_cycles=_hidden(64),
            dma_cycles=_hidden(128),
            launch_us=launch_us,
        ),
        tensor=TENSOR,
        conv=attrs.evolve(reassumed(CONV, _FROM_BAYES), input_dtypes=_j6(INT8_INT16)),
        conv_transpose=reassumed(CONV_TRANSPOSE, _FROM_BAYES),
        pool=attrs.evolve(reassumed(POOL, _FROM_BAYES), max_dtypes=_j6(INT8_INT16)),
        elementwise=reassumed(ELEMENTWISE, _FROM_BAYES),
        shape=reassumed(SHAPE, _FROM_BAYES),
        note="Only part of nash's limits is published. Ask the vendor's compiler before relying on a verdict.",
    )


NASH_E = _march("nash-e", "J6E, S100", _hardware(1_000_000_000, 40_000, 19.2e9), _yolo(520.0))
NASH_M = _march("nash-m", "J6M, S100P", _hardware(1_500_000_000, 42_667, 19.2e9), _yolo(410.0))
