"""The dynamic programme finds what trying everything finds."""

from __future__ import annotations

import itertools

import pytest

from carkp_bpu.compiler.group import group
from carkp_bpu.compiler.placement import Cascade, Lives, Target, Tiled
from carkp_bpu.compiler.reside import Menus
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_bpu.compiler.search import _Search, search
from carkp_bpu.compiler.segments import Runs
from carkp_bpu.march import find_march
from carkp_core.errors import BackendError

MARCH = find_march("bayes")


def residual_network():
    net = NetworkBuilder((1, 4, 24, 16))
    begin = net.conv(8, 3)
    net.conv(16, 1)
    net.conv(16, 3, groups=16)
    net.conv(8, 1, residual=begin)
    net.conv(6, 3, 2)
    return net.graph()


def cheapest(model, lives, runs, capacity):
    """Every set of resident tensors with every way to cut the layers."""
    count, best = len(model.layers), None
    for kept in itertools.product((False, True), repeat=len(lives.candidates)):
        resident = {name for name, stays in zip(sorted(lives.candidates), kept, strict=True) if stays}
        for cuts in itertools.product((False, True), repeat=count - 1):
            ends = [i for i, cut in enumerate(cuts) if cut] + [count - 1]
            cycles = total(lives, runs, capacity, resident, ends)
            if cycles is not None and (best is None or cycles < best):
                best = cycles
    return best


def total(lives, runs, capacity, resident, ends):
    cycles, first = 0.0, 0
    for last in ends:
        crossing = {n for n in resident if lives.made[n] < first <= lives.last[n]}
        leaving = {n for n in resident if first <= lives.made[n] <= last < lives.last[n]}
        inside = {n for n in resident if first <= lives.made[n] and lives.last[n] <= last}
        budget = capacity - sum(map(lives.size, crossing | leaving))
        if inside or budget < 0:
            return None
        if first == last:
            choice = runs.tiled(first, frozenset(crossing | leaving), budget, not crossing and not leaving)
        else:
            fitting = [c for c in runs.cascades(first, last, frozenset(crossing | leaving)) if c.sram_bytes <= budget]
            choice = fitting[0] if fitting else None
        if choice is None:
            return None
        cycles, first = cycles + choice.cycles, last + 1
    return cycles


@pytest.mark.parametrize("capacity", [5 << 10, 9 << 10, 14 << 10, 1 << 16])
def test_no_other_cut_or_set_of_residents_is_faster(capacity):
    model, target = group(residual_network()), Target(MARCH, capacity, "O2")
    lives, menus = Lives(model, MARCH), Menus(model, target)
    runs = Runs(model, target, lives, menus, capacity)
    segments, resident = _Search(model, target, lives, runs, capacity).best()
    ends = [segment.span[1] for segment in segments]
    found = total(lives, runs, capacity, resident, ends)
    assert found == pytest.approx(cheapest(model, lives, runs, capacity))


def test_little_memory_makes_cascades_and_plenty_makes_residents():
    model = group(residual_network())

    def planned(sram_bytes):
        target = Target(MARCH, sram_bytes, "O2")
        return next(search(model, target, Menus(model, target)))

    small, large = planned(6 << 10), planned(1 << 20)
    assert any(isinstance(segment, Cascade) for segment in small.segments)
    assert all(isinstance(segment, Tiled) for segment in large.segments)
    assert len(large.resident) == 4


def test_plans_for_smaller_shares_leave_room():
    model, target = group(residual_network()), Target(MARCH, 9 << 10, "O2")
    peaks = [plan.sram.bound for plan in search(model, target, Menus(model, target))]
    assert len(peaks) > 1
    assert peaks[-1] <= 0.7 * (9 << 10) < peaks[0] <= 9 << 10


def test_a_layer_too_large_for_the_memory_is_named():
    net = NetworkBuilder((1, 64, 8, 8))
    net.conv(64, 7)
    model, target = group(net.graph()), Target(MARCH, 2048, "O2")
    with pytest.raises(BackendError, match="smallest tile") as caught:
        next(search(model, target, Menus(model, target)))
    assert "conv2d0" in str(caught.value.where)
