"""Input ranges equal what a search over all positions finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from carkp_bpu.hbm.geometry import Sampling, Window, sampled_span, transposed_span, window_span

small = st.integers(1, 4)


def hull(positions: list[int], size: int) -> tuple[int, int] | None:
    inside = [p for p in positions if 0 <= p < size]
    return (min(inside), max(inside) + 1) if inside else None


@given(
    begin=st.integers(0, 9),
    count=small,
    taps=small,
    stride=small,
    dilation=small,
    padding=st.integers(0, 5),
    size=st.integers(1, 20),
)
def test_window_span(begin, count, taps, stride, dilation, padding, size):
    positions = [o * stride - padding + dilation * k for o in range(begin, begin + count) for k in range(taps)]
    seen = window_span((begin, begin + count), Window((0, taps), stride, dilation, padding), size)
    wanted = hull(positions, size)
    if wanted is None:
        # Windows may straddle the input without touching it when they are dilated; the range then errs to more.
        assert 0 <= seen[0] <= seen[1] <= size
    else:
        assert seen[0] <= wanted[0]
        assert seen[1] >= wanted[1]
        assert 0 <= seen[0] <= seen[1] <= size


@given(
    begin=st.integers(0, 9), count=small, kernel=small, stride=small, padding=st.integers(0, 3), size=st.integers(1, 8)
)
def test_transposed_span(begin, count, kernel, stride, padding, size):
    reached = [
        i for i in range(size) if any(0 <= o + padding - i * stride < kernel for o in range(begin, begin + count))
    ]
    seen = transposed_span((begin, begin + count), kernel, stride, padding, size)
    assert list(range(*seen)) == reached


@given(
    begin=st.integers(0, 9), count=small, numerator=small, denominator=small, offset=st.integers(-4, 4),
    bilinear=st.booleans(), size=st.integers(1, 8),
)  # fmt: skip
def test_sampled_span(begin, count, numerator, denominator, offset, bilinear, size):
    sampling = Sampling(numerator, denominator, offset, bilinear)
    places = [sampling.first(o) + step for o in range(begin, begin + count) for step in range(1 + bilinear)]
    wanted = [min(max(place, 0), size - 1) for place in places]
    seen = sampled_span((begin, begin + count), sampling, size)
    assert seen[0] <= min(wanted)
    assert seen[1] > max(wanted)
    assert 0 <= seen[0] < seen[1] <= size
