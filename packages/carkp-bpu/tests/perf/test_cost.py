from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carkp_bpu.march import MARCHES, find_march
from carkp_bpu.perf.cost import ConvWork, conv_cycles, dma_cycles, vector_cycles

BAYES = find_march("bayes")
sizes = st.integers(1, 70)
works = st.builds(ConvWork, sizes, sizes, st.integers(1, 25), sizes, sizes, st.integers(1, 4))


def test_a_full_block_runs_at_the_efficient_rate() -> None:
    pixels, depth, filters = BAYES.mac_block
    work = ConvWork(64, 8 * pixels, 9, 2 * depth, 2 * filters)
    rate = BAYES.macs_per_cycle * BAYES.costs.conv_efficiency.value
    assert conv_cycles(work, BAYES) == pytest.approx(work.macs / rate, rel=1e-3)


def test_what_does_not_fill_a_block_costs_a_block() -> None:
    full = ConvWork(16, 8, 1, 32, 32)
    assert conv_cycles(attrs.evolve(full, width=1, depth=1, filters=1), BAYES) == conv_cycles(full, BAYES)
    assert conv_cycles(attrs.evolve(full, filters=33), BAYES) > conv_cycles(full, BAYES)


def test_depthwise_has_a_rate_of_its_own() -> None:
    work = ConvWork(32, 32, 9, 1, 1, groups=64)
    assert work.depthwise
    expected = work.macs / BAYES.costs.depthwise_macs_per_cycle.value
    assert conv_cycles(work, BAYES) == pytest.approx(expected, rel=1e-3)


def test_int16_is_slower_by_the_marchs_divisor() -> None:
    work = ConvWork(32, 32, 9, 64, 64)
    slow = conv_cycles(attrs.evolve(work, element_bytes=2), BAYES)
    assert slow == pytest.approx(conv_cycles(work, BAYES) * BAYES.hardware.int16_mac_divisor.value, rel=1e-3)


def test_feature_maps_bound_a_layer_with_few_products() -> None:
    work = ConvWork(8, 8, 1, 32, 32, feature_bytes=10**6)
    assert conv_cycles(work, BAYES) == vector_cycles(10**6, BAYES)


def test_dma_moves_whole_bursts() -> None:
    assert dma_cycles(1, 1, BAYES) == dma_cycles(64, 1, BAYES)
    assert dma_cycles(64 * 10, 10, BAYES) == dma_cycles(64 * 10, 1, BAYES)
    assert dma_cycles(10, 10, BAYES) == dma_cycles(640, 1, BAYES)


@given(works, st.sampled_from(MARCHES), st.sampled_from(["height", "width", "kernel_area", "depth", "filters"]))
def test_more_work_never_takes_fewer_cycles(work: ConvWork, march: object, field: str) -> None:
    if work.depthwise and field in ("depth", "filters"):
        return
    more = attrs.evolve(work, **{field: getattr(work, field) + 1})
    assert conv_cycles(more, march) >= conv_cycles(work, march)  # type: ignore[arg-type]
