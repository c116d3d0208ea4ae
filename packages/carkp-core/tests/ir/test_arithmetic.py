"""The arithmetic against rational numbers: every rule of docs/quantization.md that needs no graph."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from carkp_core.ir import arithmetic

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
MULTIPLIERS = st.integers(arithmetic.MULTIPLIER_MIN, arithmetic.MULTIPLIER_MAX)
SHIFTS = st.integers(arithmetic.SHIFT_MIN, arithmetic.SHIFT_MAX)
SCALES = st.floats(2.0**-20, 2.0**10, width=32)
WIDE = 1 << 62  # a clamp that never acts


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


@given(INT32, MULTIPLIERS, SHIFTS)
def test_rescale_is_one_product_rounded_half_up(acc: int, multiplier: int, shift: int) -> None:
    exact = half_up(Fraction(acc * multiplier, 1 << shift))
    assert int(arithmetic.rescale(np.int64(acc), multiplier, shift, -WIDE, WIDE)) == exact
    assert int(arithmetic.rescale(np.int64(acc), multiplier, shift, -128, 127)) == min(max(exact, -128), 127)


@pytest.mark.parametrize(("value", "expected"), [(-6, -1), (-5, -1), (-2, 0), (2, 1), (5, 1), (6, 2), (7, 2)])
def test_ties_go_up(value: int, expected: int) -> None:
    """Quarters: -1.5, -1.25, -0.5, 0.5, 1.25, 1.5, 1.75."""
    assert int(arithmetic.shift_right_round(np.int64(value), 2)) == expected


@pytest.mark.parametrize("acc", [-(1 << 31), (1 << 31) - 1])
@pytest.mark.parametrize("shift", [arithmetic.SHIFT_MIN, arithmetic.SHIFT_MAX])
def test_the_extreme_product_fits_int64(acc: int, shift: int) -> None:
    multiplier = arithmetic.MULTIPLIER_MAX
    assert -(1 << 63) <= acc * multiplier + (1 << (shift - 1)) < 1 << 63
    got = int(arithmetic.rescale(np.int64(acc), multiplier, shift, -WIDE, WIDE))
    assert got == half_up(Fraction(acc * multiplier, 1 << shift))


@given(st.lists(INT32, min_size=2, max_size=8), MULTIPLIERS, SHIFTS)
def test_rescale_is_monotone(accs: list[int], multiplier: int, shift: int) -> None:
    got = arithmetic.rescale(np.sort(np.asarray(accs, dtype=np.int64)), multiplier, shift, -128, 127)
    assert bool((np.diff(got) >= 0).all())


@given(st.floats(2.0**-31, 2.0**28, width=32))
def test_multiplier_and_shift_are_the_float32_ratio_exactly(ratio: float) -> None:
    multiplier, shift = arithmetic.multiplier_and_shift(ratio)
    assert Fraction(multiplier, 1 << shift) == Fraction(ratio)
    assert arithmetic.MULTIPLIER_MIN <= multiplier <= arithmetic.MULTIPLIER_MAX
    assert multiplier % (1 << 7) == 0, "24 significant bits in 31"


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf])
def test_a_ratio_that_is_no_factor_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="positive finite ratio"):
        arithmetic.multiplier_and_shift(ratio)


@pytest.mark.parametrize(("ratio", "shift"), [(2.0**29, 1), (2.0**-33, 63)])
def test_a_shift_outside_its_range_is_refused(ratio: float, shift: int) -> None:
    with pytest.raises(ValueError, match=f"needs shift {shift}, outside"):
        arithmetic.multiplier_and_shift(ratio)


@given(SCALES, SCALES, SCALES)
def test_the_ratio_rounds_the_product_first(scale_x: float, scale_w: float, scale_y: float) -> None:
    product = np.float32(scale_x) * np.float32(scale_w)
    assert arithmetic.rescale_ratio(scale_x, scale_w, scale_y) == product / np.float32(scale_y)


def test_the_order_of_the_ratios_roundings_matters() -> None:
    """Dividing first gives another float32 for about one triple in three; the definition fixes which is meant."""
    rng = np.random.default_rng(0)
    x, w, y = rng.uniform(0.001, 1.0, (3, 200)).astype(np.float32)
    ours = np.asarray([arithmetic.rescale_ratio(*scales) for scales in zip(x, w, y, strict=True)])
    assert 0 < int((ours != x / y * w).sum()) < 200


@given(st.lists(st.tuples(st.integers(-128, 127), SCALES), min_size=1, max_size=6), SCALES)
def test_an_add_is_within_its_error_bound(terms: list[tuple[int, float]], scale_y: float) -> None:
    """Each term is off by at most half of 2**-15, so the sum by half a step and that for each term."""
    total, exact = np.int64(0), Fraction(0)
    for value, scale in terms:
        ratio = arithmetic.rescale_ratio(scale, 1.0, scale_y)
        assume(2.0**-16 < ratio < 2.0**13)
        multiplier, shift = arithmetic.multiplier_and_shift(float(ratio))
        total = total + arithmetic.rescale_term(np.int64(value), multiplier, shift)
        exact += value * Fraction(float(ratio))
    got = int(arithmetic.finish_add(total, -WIDE, WIDE))
    assert abs(got - exact) <= Fraction(1, 2) + Fraction(len(terms), 1 << 16)


def test_a_term_keeps_fifteen_fractional_bits_and_stays_inside_its_limit() -> None:
    one = arithmetic.multiplier_and_shift(1.0)
    assert int(arithmetic.rescale_term(np.int64(3), *one)) == 3 << 15
    huge = arithmetic.rescale_term(np.asarray([-(1 << 31), (1 << 31) - 1]), (1 << 31) - 1, 17)
    assert huge.tolist() == [-(1 << 46), 1 << 46]
    assert (1 << 46) * (1 << 16) < 1 << 63, "65,536 terms fit int64"


def test_half_steps_of_two_terms_are_not_lost() -> None:
    """0.5 + 0.5 is 1: rounding each term to whole steps first would give 2."""
    half = arithmetic.multiplier_and_shift(0.5)
    total = arithmetic.rescale_term(np.int64(1), *half) * 2
    assert int(arithmetic.finish_add(total, -128, 127)) == 1


def test_an_int8_table_has_the_rounded_float64_function() -> None:
    table = arithmetic.build_table(np.tanh, 0.05, 1.0 / 127)
    scale_x, scale_y = float(np.float32(0.05)), float(np.float32(1.0 / 127))
    expected = [round(math.tanh(q * scale_x) / scale_y) for q in range(-128, 128)]
    assert table.tolist() == [min(max(entry, -128), 127) for entry in expected]
    values = np.asarray([[-128, 0, 127]], dtype=np.int8)
    assert arithmetic.table_int8(values, table).tolist() == [[table[0], table[128], table[255]]]


def test_an_int8_table_per_channel_is_chosen_by_dimension_one() -> None:
    table = np.stack([np.full(256, 5), np.arange(-128, 128)]).astype(np.int8)
    values = np.asarray([[[[1, 2]], [[3, -4]]]], dtype=np.int8)
    assert arithmetic.table_int8(values, table).tolist() == [[[[5, 5]], [[3, -4]]]]


@given(st.integers(-32768, 32767))
def test_an_int16_table_is_exact_at_its_entries_and_linear_between(value: int) -> None:
    table = arithmetic.build_table_int16(np.square, 1.0 / 32768, 1.0 / 32768)
    index, rest = divmod(value + 32768, 128)
    before, after = int(table[index]), int(table[index + 1])
    exact = half_up(before + Fraction((after - before) * rest, 128))
    assert int(arithmetic.table_int16(np.int16(value), table)) == min(max(exact, -32768), 32767)


@given(st.integers(-32768, 32767))
def test_an_int16_table_may_keep_its_fractional_bits(value: int) -> None:
    table = arithmetic.build_table_int16(np.square, 1.0 / 32768, 1.0 / 32768)
    wide = arithmetic.table_int16(np.int16(value), table, dropped_bits=0)
    rounded = int(arithmetic.shift_right_round(wide, arithmetic.TABLE_FRACTION_BITS))
    assert min(rounded, 32767) == int(arithmetic.table_int16(np.int16(value), table))


@given(st.integers(-(1 << 62), 1 << 62))
def test_a_shift_of_zero_rounds_nothing(value: int) -> None:
    assert int(arithmetic.shift_right_round(np.int64(value), 0)) == value


def test_quantizing_rounds_half_to_even_and_clamps() -> None:
    steps = np.asarray([0.5, 1.5, 2.5, -0.5, -1.5, 200.0, -200.0])
    assert arithmetic.quantize(steps * 0.25, 0.25, "int8").tolist() == [0, 2, 2, 0, -2, 127, -128]


def test_pixels_minus_128_become_themselves() -> None:
    """An input behind Normalize(128, 128) has scale 1/128: the integer input is the pixel minus 128."""
    pixels = np.arange(256, dtype=np.float32)
    normalized = (pixels - 128.0) / 128.0
    assert arithmetic.quantize(normalized, 1.0 / 128.0, "int8").tolist() == list(range(-128, 128))


def test_dequantizing_is_one_float32_product() -> None:
    got = arithmetic.dequantize(np.asarray([-128, 3], dtype=np.int8), 0.1)
    assert got.dtype == np.float32
    assert got.tolist() == [float(np.float32(-128) * np.float32(0.1)), float(np.float32(3) * np.float32(0.1))]
