"""Allocation: plans are valid by a separate verifier, reach known optima, and are the same every time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.allocate import Allocation, Buffer, allocate, live_bound, live_bytes, lowest, refit, verify
from carkp_bpu.compiler.packings import perfect_packing


@st.composite
def buffers(draw):
    made = []
    for i in range(draw(st.integers(1, 14))):
        first = draw(st.integers(0, 8))
        made.append(Buffer(str(i), draw(st.integers(1, 500)), first, first + draw(st.integers(0, 5))))
    return made


@settings(max_examples=60, deadline=None)
@given(buffers())
def test_any_plan_passes_the_verifier(wanted):
    plan = lowest(wanted, rounds=10)
    verify(wanted, plan, plan.height)
    assert plan.height >= plan.bound == live_bound(wanted)
    assert lowest(wanted, rounds=10) == plan


@pytest.mark.parametrize("count", [20, 50, 100, 150])
@pytest.mark.parametrize("seed", range(3))
def test_known_optima_are_reached(count, seed):
    """Perfect packings: not one byte of slack at any time."""
    wanted = perfect_packing(count, seed)
    assert set(live_bytes(wanted).values()) == {1 << 20}
    plan = lowest(wanted, rounds=400)
    verify(wanted, plan, plan.height)
    assert (plan.bound, plan.height, plan.overhead) == (1 << 20, 1 << 20, 0.0)


@pytest.mark.parametrize("seed", range(2))
def test_large_packings_get_lower_the_longer_the_search(seed):
    wanted = perfect_packing(300, seed)
    plans = [lowest(wanted, rounds=rounds) for rounds in (0, 100)]
    for plan in plans:
        verify(wanted, plan, plan.height)
    assert plans[1].height < plans[0].height


def test_a_packing_with_holes_is_planned_within_its_memory():
    """Some buffers left out: the bound stays, the plan no longer has to be perfect."""
    wanted = [buffer for index, buffer in enumerate(perfect_packing(100, 0)) if index % 10]
    plan = allocate(wanted, 1 << 20)
    assert plan is not None
    verify(wanted, plan, 1 << 20)


def test_a_capacity_under_the_bound_is_refused_at_once():
    wanted = [Buffer("a", 64, 0, 1), Buffer("b", 64, 1, 2)]
    assert allocate(wanted, 127) is None
    assert allocate(wanted, 128).height == 128


def test_a_buffer_moves_alone_when_it_begins_earlier():
    wanted = [Buffer("a", 64, 0, 1), Buffer("b", 64, 1, 2), Buffer("c", 32, 2, 3)]
    plan = allocate(wanted, 192)
    earlier = Buffer("c", 32, 1, 3)
    moved = refit(wanted, plan, earlier, 192)
    verify([*wanted[:2], earlier], moved, 192)
    assert {n: moved.offsets[n] for n in "ab"} == {n: plan.offsets[n] for n in "ab"}
    assert refit(wanted, plan, Buffer("c", 80, 1, 3), 192) is None


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ({"a": 0, "b": 48}, "a and b overlap at 48"),
        ({"a": 0, "b": 72}, "b at 72"),
        ({"a": 0, "b": 192}, "leaves a memory"),
    ],
)
def test_the_verifier_names_what_is_wrong(offsets, message):
    wanted = [Buffer("a", 64, 0, 1), Buffer("b", 64, 1, 2)]
    with pytest.raises(ValueError, match=message):
        verify(wanted, Allocation(offsets, 256, 128), 208)
