"""Requantization equals the arithmetic's definition at the ends of every range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.simulator.kernels import requantize as kernels
from carkp_bpu.simulator.lowering.base import Rescale
from carkp_core.ir import arithmetic

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
MULTIPLIER = st.integers(0, (1 << 31) - 1)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.tuples(INT32, st.integers(-(1 << 20), 1 << 20), MULTIPLIER, st.integers(2, 62)), min_size=1),
    lo=st.sampled_from([-128, 0]),
    hi=st.sampled_from([127, 40]),
)
def test_requantize_equals_the_definition(values, lo, hi):
    acc, bias, multiplier, shift = (np.array(column, dtype=np.int64) for column in zip(*values, strict=True))
    acc = np.clip(acc, -(1 << 31) + (1 << 20), (1 << 31) - (1 << 20) - 1)
    out = np.empty(acc.size, dtype=np.int8)
    tables = Rescale.of(multiplier, shift, bias).arrays
    kernels.requantize(acc.astype(np.int32), acc.size, *tables, lo, hi, out)
    np.testing.assert_array_equal(out, arithmetic.rescale(acc + bias, multiplier, shift, lo, hi))


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.tuples(INT32, st.integers(-128, 127), MULTIPLIER, st.integers(17, 62)), min_size=1),
    term=st.tuples(MULTIPLIER, st.integers(17, 62), st.sampled_from([1, -1])),
)
def test_requantize_add_equals_the_definition(values, term):
    acc, residual, multiplier, shift = (np.array(column, dtype=np.int64) for column in zip(*values, strict=True))
    out = np.empty(acc.size, dtype=np.int8)
    tables = Rescale.of(multiplier, shift, 0, arithmetic.ADD_FRACTION_BITS).arrays
    numbers = (term[0], 1 << (term[1] - 16), term[1] - 15, term[2])
    kernels.requantize_add(acc.astype(np.int32), acc.size, tables, residual.astype(np.int8), numbers, -128, 127, out)
    total = arithmetic.rescale_term(acc, multiplier, shift)
    total = total + term[2] * arithmetic.rescale_term(residual, term[0], term[1])
    np.testing.assert_array_equal(out, arithmetic.finish_add(total, -128, 127))


@pytest.mark.parametrize("count", [1, 6, 7, 20])
def test_parameters_repeat_with_their_own_length(count):
    rng = np.random.default_rng(0)
    acc = rng.integers(-1000, 1000, count).astype(np.int32)
    rescale = Rescale.of(rng.integers(1 << 30, 1 << 31, 6), np.full(6, 34), rng.integers(-9, 9, 6))
    tiled = rescale.repeated()
    assert tiled.multiplier.size % 6 == 0
    found = [np.empty(count, np.int8) for _ in range(2)]
    kernels.requantize(acc, count, *rescale.arrays, -128, 127, found[0])
    kernels.requantize(acc, count, *tiled.arrays, -128, 127, found[1])
    np.testing.assert_array_equal(*found)


def test_float_accumulators_hold_whole_numbers():
    acc = np.array([2.0**40, -(2.0**40), 3.0])
    out = np.empty(3, np.int16)
    tables = Rescale.of(np.full(3, 1 << 20), np.full(3, 47), 0).arrays
    kernels.requantize(acc, 3, *tables, -32768, 32767, out)
    expected = arithmetic.rescale(acc.astype(np.int64), np.full(3, 1 << 20), np.full(3, 47), -32768, 32767)
    np.testing.assert_array_equal(out, expected)
