"""Allocation: plans are valid by a separate verifier, reach known optima, and are the same every time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.allocate import Allocation, Buffer, allocate, live_bound, lowest, refit, verify


def packed(seed: int, height: int = 4096, steps: int = 24) -> list[Buffer]:
    """Buffers cut out of a full rectangle of memory and time, so that the best height is known."""
    chance = random.Random(seed)
    boxes = [(0, height, 0, steps - 1)]
    for _ in range(40):
        at, size, first, last = boxes.pop(chance.randrange(len(boxes)))
        if chance.random() < 0.5 and size >= 64:
            cut = chance.randrange(16, size, 16)
            boxes += [(at, cut, first, last), (at + cut, size - cut, first, last)]
        elif last > first:
            when = chance.randrange(first, last)
            boxes += [(at, size, first, when), (at, size, when + 1, last)]
        else:
            boxes.append((at, size, first, last))
    return [Buffer(str(i), size, first, last) for i, (_, size, first, last) in enumerate(boxes)]


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


@pytest.mark.parametrize("seed", range(6))
def test_known_optima_are_nearly_reached(seed):
    wanted = packed(seed)
    plan = lowest(wanted, rounds=200)
    verify(wanted, plan, plan.height)
    assert plan.bound == 4096
    assert plan.overhead <= 0.03


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
