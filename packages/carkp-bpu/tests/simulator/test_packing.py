"""Numbers for the vector kernels: float64 rescaling where it is proven, weights in the kernels' order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core import config

from carkp_bpu.simulator import packing
from carkp_bpu.simulator.lowering.base import Rescale


@given(
    bound=st.integers(0, (1 << 31) - 1),
    multiplier=st.integers(0, (1 << 31) - 1),
    shift=st.integers(2, 62),
    bias=st.integers(-(1 << 31), (1 << 31) - 1),
    part=st.floats(-1.0, 1.0),
)
def test_tables_are_exact_or_refused(bound, multiplier, shift, bias, part):
    rescale = [values.tolist() for values in Rescale.of(np.array([multiplier]), np.array([shift]), bias).arrays]
    tables = packing.exact_tables(*rescale, [bound], packing.RESULT_LIMIT)
    if tables is None:
        return
    for total in (bound, -bound, int(bound * part)):
        expected = (total * multiplier + rescale[1][0]) >> shift
        assert np.floor(total * tables.factor[0] + tables.offset[0]) == expected


def test_what_a_float64_cannot_hold_is_refused():
    odd = (1 << 31) - 1
    assert packing.exact_tables([odd], [1], [31], [1 << 21], packing.RESULT_LIMIT) is not None
    assert packing.exact_tables([odd], [1], [31], [1 << 23], packing.RESULT_LIMIT) is None
    assert packing.exact_tables([odd], [(1 << 53) + 1], [31], [0], packing.RESULT_LIMIT) is None


def test_results_beyond_the_limit_are_refused():
    assert packing.exact_tables([1 << 30], [1 << 1], [2], [1 << 3], packing.RESULT_LIMIT) is None


def test_the_zeros_at_the_end_count():
    """Multipliers of the converter end in seven zeros, which leaves their products room."""
    assert packing.exact_tables([1 << 30], [1 << 33], [34], [(1 << 31) - 1], packing.RESULT_LIMIT) is not None


def test_matrices_are_cut_into_tiles_of_64_channels():
    weight = np.arange(6 * 70, dtype=np.int64).reshape(6, 70).astype(np.int8)
    packed = packing.pack_matrix(weight)
    assert packed.size == 8 * 80
    first, last = packed[: 8 * 64].reshape(2, 64, 4), packed[8 * 64 :].reshape(2, 16, 4)
    np.testing.assert_array_equal(first[1, 5], [*weight[4:6, 5], 0, 0])
    np.testing.assert_array_equal(last[0, 5], weight[:4, 69])
    assert not last[:, 6:].any()


@pytest.mark.parametrize(
    ("channels", "widths"),
    [(1, [16]), (16, [16]), (33, [32, 16]), (48, [32, 16]), (64, [64]), (130, [64, 64, 16]), (112, [64, 32, 16])],
)
def test_blocks_cover_all_channels_once(channels, widths):
    blocks = packing.depthwise_blocks(channels)
    assert [width for _, width in blocks] == widths
    assert [first for first, _ in blocks] == [sum(widths[:i]) for i in range(len(widths))]


def test_depthwise_weights_hold_four_taps_together():
    weight = np.zeros((9, 20), dtype=np.int8)
    weight[:, 5] = np.arange(1, 10)
    tables = packing.Tables(np.arange(20.0), -np.arange(20.0))
    packed, numbers = packing.pack_depthwise(weight, tables)
    # Channel 5 of 16 is place 1 of the second sum.
    assert packed[: 3 * 64].reshape(3, 4, 4, 4)[:, 1, 1].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 0, 0]]
    assert numbers[:32].reshape(2, 4, 4)[:, 1, 1].tolist() == [5.0, -5.0]
    assert packed.size == 3 * 64 * 2


def test_a_generic_cpu_has_no_vector_instructions(monkeypatch):
    monkeypatch.setattr(config, "CPU_NAME", "generic")
    monkeypatch.setattr(config, "CPU_FEATURES", None)
    assert not packing.has_instructions()
    monkeypatch.setattr(config, "CPU_FEATURES", "+avx2,+fma")
    assert not packing.has_instructions()
    monkeypatch.setattr(config, "CPU_FEATURES", ",".join(packing.NEEDED))
    assert packing.has_instructions()
