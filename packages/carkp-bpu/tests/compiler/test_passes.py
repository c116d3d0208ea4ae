"""What each pass makes of a small network, before and after, as golden text.

``UPDATE_GOLDEN=1 pytest packages/carkp-bpu/tests/compiler/test_passes.py`` writes the texts anew: read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from carkp_bpu.compiler.emit import emit, store_parameters
from carkp_bpu.compiler.group import group
from carkp_bpu.compiler.homes import Constants, find_homes
from carkp_bpu.compiler.picture import buffers_text, instructions_text, layers_text, segments_text
from carkp_bpu.compiler.placement import Target
from carkp_bpu.compiler.prefetch import prefetch
from carkp_bpu.compiler.reside import Menus, reside
from carkp_bpu.compiler.samples import NetworkBuilder
from carkp_bpu.compiler.schedule import add_waits
from carkp_bpu.compiler.search import search
from carkp_bpu.march import find_march
from carkp_core.ir import operators as ops

GOLDENS = Path(__file__).with_name("goldens")
MARCH = find_march("bayes")


def network(size=32):
    """A stem, an inverted residual with its addition at the end, a pool, and a reshape that moves nothing."""
    net = NetworkBuilder((1, 3, size, size))
    begin = net.conv(8, 3)
    net.conv(24)
    net.conv(24, 3, groups=24)
    net.conv(8, lo=-128, residual=begin)
    net.add(ops.MaxPool((2, 2), (2, 2), (0, 0, 0, 0)))
    net.add(ops.Reshape((1, 8, size * size // 4)))
    return net.graph()


def target(sram_bytes, level="O2"):
    return Target(MARCH, sram_bytes, level)


def emitted(model, placement, machine):
    constants = Constants()
    homes = find_homes(model, placement, constants)
    blocks = store_parameters(model, placement, constants)
    section = constants.section()
    made = emit(model, placement, homes.moved(len(section)), blocks, machine)
    return made, len(section) + homes.frame_bytes


def nodes_text(graph):
    return "".join(f"{n.name}: {n.type.shape} = {n.op.kind}({', '.join(n.inputs)})\n" for n in graph.nodes)


def group_pass():
    graph = network()
    return nodes_text(graph), layers_text(group(graph))


def reside_pass():
    model = group(network())
    machine = target(20 << 10, "O1")
    return layers_text(model), segments_text(model, reside(model, machine, Menus(model, machine)))


def search_pass():
    model = group(network())
    machine = target(20 << 10)
    menus = Menus(model, machine)
    plain = reside(model, machine, menus)
    return segments_text(model, plain), segments_text(model, next(search(model, machine, menus)))


def prefetch_pass():
    model = group(network(8))
    machine = target(8 << 10, "O1")
    placement = reside(model, machine, Menus(model, machine))
    ahead = prefetch(placement, machine.sram_bytes)
    return tuple(buffers_text(p.buffers) for p in (placement, ahead))


def emit_pass():
    model = group(network(16))
    machine = target(6 << 10)
    placement = next(search(model, machine, Menus(model, machine)))
    made, _ = emitted(model, placement, machine)
    return segments_text(model, placement), instructions_text(made.instructions, made.debug)


def schedule_pass():
    model = group(network(16))
    machine = target(6 << 10)
    made, ddr_bytes = emitted(model, next(search(model, machine, Menus(model, machine))), machine)
    waiting = add_waits(made.instructions, machine.sram_bytes, ddr_bytes)
    assert [attrs.evolve(i, waits=(0, 0, 0, 0)) for i in waiting] == list(made.instructions)
    return tuple(instructions_text(i[:24], made.debug) for i in (made.instructions, waiting))


PASSES = {f.__name__: f for f in (group_pass, reside_pass, search_pass, prefetch_pass, emit_pass, schedule_pass)}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_turns_the_golden_before_into_the_golden_after(name):
    before, after = PASSES[name]()
    assert before != after
    found = f"before\n------\n{before}\nafter\n-----\n{after}"
    golden = GOLDENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8"), f"meant? UPDATE_GOLDEN=1 pytest {Path(__file__).name}"
