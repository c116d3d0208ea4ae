"""The skyline search: what it finds is a plan, what it refuses has none where that is easy to see."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.packings import perfect_packing
from carkp_bpu.compiler.skyline import fill

Spans = list[tuple[int, int, int]]


def assert_plan(spans: Spans, offsets: list[int], height: int) -> None:
    for (one, at), (other, begin) in itertools.combinations(zip(spans, offsets, strict=True), 2):
        if one[0] <= other[1] and other[0] <= one[1]:
            assert at + one[2] <= begin or begin + other[2] <= at
    assert all(at >= 0 and at + size <= height for (_, _, size), at in zip(spans, offsets, strict=True))


def exhaustive(spans: Spans, height: int) -> bool:
    """Whether any order, each buffer at its lowest offset, stays within the height."""
    for order in itertools.permutations(spans):
        placed: list[tuple[tuple[int, int, int], int]] = []
        for span in order:
            at = 0
            for (first, last, size), begin in sorted(placed, key=lambda item: item[1]):
                if first <= span[1] and span[0] <= last and begin < at + span[2]:
                    at = max(at, begin + size)
            placed.append((span, at))
        if all(at + span[2] <= height for span, at in placed):
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=5))
def test_it_agrees_with_trying_every_order(drawn):
    spans = [(first, first + more, size) for first, more, size in drawn]
    bound = max(sum(s for f, last, s in spans if f <= time <= last) for time in range(9))
    for height in (bound - 1, bound, bound + 1):
        offsets = fill(spans, height, 2000)
        if offsets is not None:
            assert_plan(spans, offsets, height)
        assert (offsets is not None) <= exhaustive(spans, height)
        if height < bound:
            assert offsets is None


@pytest.mark.parametrize("seed", range(4))
def test_perfect_packings_are_found(seed):
    spans = [(buffer.first, buffer.last, buffer.size) for buffer in perfect_packing(60, seed)]
    offsets = fill(spans, 1 << 20, 4000)
    assert offsets is not None
    assert_plan(spans, offsets, 1 << 20)
    assert fill(spans, 1 << 20, 4000) == offsets
    assert fill(spans, (1 << 20) - 16, 4000) is None


def test_nothing_to_place_needs_nothing():
    assert fill([], 0, 10) == []


def test_the_search_gives_up_when_its_visits_are_used():
    spans = [(buffer.first, buffer.last, buffer.size) for buffer in perfect_packing(60, 0)]
    assert fill(spans, 1 << 20, 8) is None
