"""The fake quantizer's rescale against ``ir.arithmetic``: all three ways of computing it, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.ir import arithmetic
from carkp_core.quant.rescale import APART_SHIFTS, FLOAT64_BOUND, AddTerm, Factor, added, rescaled

INT32_MAX = (1 << 31) - 1
#: The converter's multipliers: 24 significant bits in 31.
BIASES = st.integers(-INT32_MAX + 1024, INT32_MAX - 1024)
MULTIPLIERS = st.integers(1 << 23, (1 << 24) - 1).map(lambda mantissa: mantissa << 7)


def factor_of(multiplier: list[int], shift: list[int], bounds: tuple[int, int], **kwargs: Any) -> Factor:
    return Factor.biased(multiplier, shift, bounds, torch.zeros(1), channels_dim=4, **kwargs)


def near_ties(rng: np.random.Generator, multiplier: int, shift: int, bias: int, bound: int) -> np.ndarray:
    """Accumulators whose rescaled value lies next to a half, and random ones."""
    halves = rng.integers(-130, 130, 200) + 0.5
    around = np.rint(halves * 2.0**shift / multiplier) - bias
    chosen = np.concatenate([around + d for d in (-1, 0, 1)] + [rng.integers(-bound, bound, 200), [-bound, 0, bound]])
    return np.clip(chosen, -bound, bound).astype(np.int64)


@settings(max_examples=80, deadline=None)
@given(
    MULTIPLIERS, st.integers(2, 62), BIASES, st.sampled_from([20, 24, 28, 31]),
    st.integers(0, 10**6),
)  # fmt: skip
def test_every_way_equals_the_arithmetic(multiplier: int, shift: int, bias: int, bits: int, seed: int) -> None:
    bound = min((1 << bits) - 1, INT32_MAX - abs(bias))
    acc = near_ties(np.random.default_rng(seed), multiplier, shift, bias, bound)
    factor = factor_of([multiplier], [shift], (bound + abs(bias), bound))
    values = torch.from_numpy(acc.astype(np.float64)).reshape(1, 1, -1, 1)
    offset = torch.tensor([bias], dtype=torch.float64).reshape(1, 1, 1, 1)
    expected = arithmetic.rescale(acc + bias, multiplier, shift, -32768, 32767)
    assert rescaled(values, offset, factor, -32768, 32767).flatten().tolist() == expected.tolist()


@settings(max_examples=50, deadline=None)
@given(MULTIPLIERS, st.integers(17, 77), BIASES, st.booleans(), st.integers(0, 10**6))
def test_sums_equal_the_arithmetic(multiplier: int, shift: int, bias: int, negative: bool, seed: int) -> None:
    bound = min(FLOAT64_BOUND, INT32_MAX - abs(bias))
    rng = np.random.default_rng(seed)
    acc = near_ties(rng, multiplier, shift, bias, bound)
    other = rng.integers(-128, 128, acc.size)
    second = arithmetic.multiplier_and_shift(0.7)
    terms = (
        AddTerm(
            torch.from_numpy(acc.astype(np.float64)).reshape(1, 1, -1, 1),
            factor_of([multiplier], [shift], (bound + abs(bias), bound)),
            bias=torch.tensor([bias], dtype=torch.float64).reshape(1, 1, 1, 1),
        ),
        AddTerm(
            torch.from_numpy(other.astype(np.float32)).reshape(1, 1, -1, 1),
            Factor.of(*second, 1 << 15, torch.zeros(1)),
            negative,
        ),
    )
    sign = -1 if negative else 1
    total = arithmetic.rescale_term(acc + bias, multiplier, shift) + sign * arithmetic.rescale_term(other, *second)
    assert added(terms, -128, 127).flatten().tolist() == arithmetic.finish_add(total, -128, 127).tolist()


def test_a_silent_channel_may_have_any_shift() -> None:
    """Its sum is 0, so the result is the rescaled bias alone."""
    biases, multiplier, shift = [1 << 30, -(1 << 30), (1 << 31) - 1], [(1 << 31) - 128] * 3, [62, 61, 30]
    factor = factor_of(multiplier, shift, (INT32_MAX, 1 << 20), silent=(0, 1))
    assert factor.shifts == (30, 30)
    values = torch.zeros(1, 3, 1, 1)
    offset = torch.tensor(biases, dtype=torch.float64).reshape(1, 3, 1, 1)
    expected = [
        int(arithmetic.rescale(np.int64(b), m, s, -128, 127)) for b, m, s in zip(biases, multiplier, shift, strict=True)
    ]
    assert rescaled(values, offset, factor, -128, 127).flatten().tolist() == expected


@pytest.mark.parametrize("shift", [APART_SHIFTS[0] - 1, APART_SHIFTS[0], APART_SHIFTS[1], APART_SHIFTS[1] + 1])
def test_the_edges_of_the_ways(shift: int) -> None:
    multiplier, bias = (1 << 31) - 128, (1 << 30) + 1
    acc = near_ties(np.random.default_rng(shift), multiplier, shift, bias, FLOAT64_BOUND)
    factor = factor_of([multiplier], [shift], (bias + FLOAT64_BOUND, FLOAT64_BOUND))
    offset = torch.tensor([bias], dtype=torch.float64).reshape(1, 1, 1, 1)
    got = rescaled(torch.from_numpy(acc.astype(np.float64)).reshape(1, 1, -1, 1), offset, factor, -128, 127)
    assert got.flatten().tolist() == arithmetic.rescale(acc + bias, multiplier, shift, -128, 127).tolist()


def test_a_product_just_below_a_tie_rounds_down() -> None:
    """Sums beyond 2**28 whose product is one unit below a tie: float64 would round some of them to the tie."""
    rng, bits = np.random.default_rng(0), 31
    for mantissa in rng.integers(1 << 22, 1 << 23, 50) * 2 + 1:
        acc = ((1 << (bits - 1)) - 1) * pow(int(mantissa), -1, 1 << bits) % (1 << bits)
        multiplier, shift = int(mantissa) << 7, bits + 7
        factor = factor_of([multiplier], [shift], (INT32_MAX, INT32_MAX))
        got = rescaled(torch.full((1, 1, 1, 1), acc, dtype=torch.float64), None, factor, 0, 1 << 24)
        assert got.item() == arithmetic.rescale(np.int64(acc), multiplier, shift, 0, 1 << 24)


def test_gradients_are_the_ratio_inside_and_zero_where_clamped() -> None:
    multiplier, shift = arithmetic.multiplier_and_shift(0.25)
    factor = Factor.of(multiplier, shift, 1 << 10, torch.zeros(1))
    acc = torch.tensor([[-1000.0, -8.0, 0.0, 9.0, 1000.0]], requires_grad=True)
    bias = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    rescaled(acc, bias, factor, 0, 127).sum().backward()
    assert acc.grad is not None
    assert bias.grad is not None
    assert acc.grad.tolist() == [[0.0, 0.0, 0.25, 0.25, 0.0]]
    assert bias.grad.tolist() == [[0.5]]


def test_gradients_of_a_sum_reach_broadcast_terms_with_their_signs() -> None:
    factor = Factor.of(*arithmetic.multiplier_and_shift(0.5), 1 << 15, torch.zeros(1))
    a = torch.tensor([[[[4.0, 6.0]]], [[[300.0, 8.0]]]], requires_grad=True)
    b = torch.tensor([[[[2.0]]]], requires_grad=True)
    result = added((AddTerm(a, factor), AddTerm(b, factor, negative=True)), -128, 127)
    assert result.flatten().tolist() == [1.0, 2.0, 127.0, 3.0]
    result.sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.flatten().tolist() == [0.5, 0.5, 0.0, 0.5]
    assert b.grad.flatten().tolist() == [-1.5]
