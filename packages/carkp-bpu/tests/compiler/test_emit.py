"""Emitted programs equal the reference executor: every operator inside a cascade, every plan of random networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.allocate import allocate
from carkp_bpu.compiler.compile import _assemble, _placements, compile_graph
from carkp_bpu.compiler.group import group
from carkp_bpu.compiler.placement import Cascade, Lives, Placement, Target, wanted_buffers
from carkp_bpu.compiler.reside import Menus
from carkp_bpu.compiler.samples import NetworkBuilder, random_inputs
from carkp_bpu.compiler.segments import Runs
from carkp_bpu.march import MARCHES, find_march
from carkp_bpu.simulator.machine import run_program, traffic
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph
from carkp_core.ir.reference import execute

NONE: frozenset[str] = frozenset()


def options(sram_bytes: int, march: str = "bayes", opt: str = "O2") -> CompileOptions:
    return CompileOptions(march=march, name="net", hbm="net.hbm", out_dir=".", opt=opt, sram_bytes=sram_bytes)


def assert_equal(graph: Graph, program, frames: int = 2) -> None:
    """Outputs and every tensor in between that has a place."""
    inputs, names = random_inputs(graph, frames), [node.name for node in graph.nodes]
    expected, seen = execute(graph, inputs, names), run_program(program, inputs, names)
    for name, value in expected.items():
        np.testing.assert_array_equal(seen[name], np.broadcast_to(value, seen[name].shape), err_msg=name)


def forced(graph: Graph, first: int, last: int, stripe: int, march: str = "bayes"):
    """The program in which some layers are a cascade, and nothing stays on chip besides."""
    model, target = group(graph), Target(find_march(march), 1 << 18, "O2")
    lives, menus = Lives(model, target.march), Menus(model, target)
    runs = Runs(model, target, lives, menus, target.sram_bytes)
    built = [choice.build() for choice in runs.cascades(first, last, NONE)]
    cascade = next(segment for segment in built if segment.shape.stripe == stripe)
    alone = {i: runs.tiled(i, NONE, target.sram_bytes, True).build() for i in range(len(model.layers))}
    segments = (*(alone[i] for i in range(first)), cascade, *(alone[i] for i in range(last + 1, len(alone))))
    buffers = wanted_buffers(model, lives, segments, NONE)
    placement = Placement(segments, NONE, tuple(buffers), allocate(buffers, target.sram_bytes))
    made = _assemble(graph, model, placement, target, options(1 << 18, march))
    assert traffic(made.program).ddr_bytes == made.stats.ddr_bytes
    return made


def residual(net):
    before = net.last
    net.conv(5, 3)
    net.conv(6, 1, residual=before)


INSIDE = {
    "strided": lambda net: net.conv(7, 3, 2),
    "dilated": lambda net: net.conv(7, 3, dilation_hw=(2, 1), padding_tlbr=(2, 1, 2, 1)),
    "large_kernel": lambda net: net.conv(3, (9, 7)),
    "even_kernel": lambda net: net.conv(3, (4, 2), (3, 1)),
    "depthwise": lambda net: net.conv(6, 5, groups=6, lo=-128),
    "grouped": lambda net: net.conv(9, 3, groups=3),
    "residual": residual,
    "deconv": lambda net: net.deconv(5, 4, 2),
    "sparse_deconv": lambda net: net.deconv(5, 2, 3, padding_tlbr=(0, 0, 0, 0)),
    "max_pool": lambda net: net.add(ops.MaxPool((3, 3), (2, 2), (1, 1, 1, 1))),
    "avg_pool": lambda net: net.avg_pool((3, 2), (1, 2), (1, 0, 1, 0), include=False),
    "nearest": lambda net: net.resize("nearest", (48, 22)),
    "bilinear": lambda net: net.resize("bilinear", (37, 9)),
    "add_itself": lambda net: net.add_tensors(net.last, net.last),
    "add_vector": lambda net: net.add_tensors(net.last, net.constant((1, 6, 1, 1))),
    "add_map": lambda net: net.add_tensors(net.last, net.constant((1, 6, 24, 11))),
    "mul": lambda net: net.mul(net.last, net.last),
    "channels": lambda net: net.concat(1, net.last, net.conv(3, 3)),
    "stacked": lambda net: net.concat(2, net.last, net.last),
    "beside": lambda net: net.concat(3, net.last, net.last),
    "table": lambda net: net.table(per_channel=True),
    "padded": lambda net: net.add(ops.Pad((3, 1, 2, 0), -3)),
    "channel_slice": lambda net: net.add(ops.Slice(1, 1, 6, 2)),
    "row_slice": lambda net: net.add(ops.Slice(2, 1, net.shape()[2], 3)),
    "column_slice": lambda net: net.add(ops.Slice(3, 0, net.shape()[3], 2)),
    "turned_rows": lambda net: net.add(ops.Transpose((0, 3, 2, 1))),
    "clamp": lambda net: net.add(ops.Clamp(-20, 60)),
    "int16": lambda net: net.rescale("int16"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_every_operator_runs_in_a_cascade(name):
    """Between two convolutions, in stripes of one row, of some, and of a number that divides nothing."""
    net = NetworkBuilder((1, 3, 24, 11))
    net.conv(6, 3)
    INSIDE[name](net)
    net.conv(5, 3)
    graph = net.graph()
    last = len(group(graph).layers) - 1
    height = net.shape()[2]
    stripes = sorted({1, -(-height // 8), -(-height // 2)})
    for stripe in stripes:
        made = forced(graph, 0, last, stripe)
        assert made.stats.spilled_tensors == 0
        assert_equal(graph, made.program)


@pytest.mark.parametrize("march", [march.name for march in MARCHES])
def test_a_cascade_runs_on_every_march_with_neighbours_and_two_outputs(march):
    """A tensor made inside that is also an output, one that a later layer reads, and inputs through DDR."""
    net = NetworkBuilder((1, 3, 20, 9))
    first = net.conv(6, 3)
    inner = net.conv(7, 3)
    net.conv(6, 1, residual=first)
    net.conv(5, 3, 2)
    late = net.add_tensors(net.conv(7, 3, source=inner), inner)
    made = forced(net.graph(inner, late), 0, 3, 2, march)
    assert_equal(net.graph(inner, late), made.program)
    made = forced(net.graph(inner, late), 1, 3, 5, march)
    assert_equal(net.graph(inner, late), made.program)


def grow(net: NetworkBuilder, steps: int) -> list[str]:
    """A network of maps of some height; the tensors made, in order."""
    rng, made = net.rng, [net.last]
    kinds = [*INSIDE, "conv", "branch"]
    for _ in range(steps):
        _, channels, height, width = net.shape()
        kind = str(rng.choice(kinds))
        if kind == "branch":
            net.last = made[int(rng.integers(len(made)))]
            net.conv(6, int(rng.integers(1, 4)))
        elif kind == "conv" or kind == "int16" or channels != 6 or height < 10 or width < 7 or height * width > 900:
            net.conv(6, 3, 1 if height < 10 else int(rng.integers(1, 3)))
        elif kind == "add_map":
            net.add_tensors(net.last, net.constant((1, 6, height, width)))
        else:
            INSIDE[kind](net)
        made.append(net.last)
    return made


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(2, 7),
    march=st.sampled_from([march.name for march in MARCHES]),
    kibibytes=st.sampled_from([2, 4, 6, 10, 16]),
)
def test_every_plan_of_random_networks_is_bit_equal(seed, steps, march, kibibytes):
    """All that compete at O2, in memories that force tiles and cascades."""
    rng = np.random.default_rng(seed)
    net = NetworkBuilder((1, 3, int(rng.integers(12, 40)), int(rng.integers(7, 16))), seed)
    net.conv(6, 3)
    made = grow(net, steps)
    outputs = {net.last, made[int(rng.integers(len(made)))]}
    graph = net.graph(*sorted(outputs))
    model, target = group(graph), Target(find_march(march), kibibytes << 10, "O2")
    plans, refusal = [], "smallest tile"
    try:
        plans = list(_placements(model, target))
    except BackendError as error:
        refusal = str(error)
    assert "smallest tile" in refusal
    for placement in plans[1:]:
        program = _assemble(graph, model, placement, target, options(kibibytes << 10, march)).program
        assert_equal(graph, program, frames=1)


def cascades(graph: Graph, sram_bytes: int) -> int:
    model, target = group(graph), Target(find_march("bayes"), sram_bytes, "O2")
    plans = list(_placements(model, target))
    return max(sum(isinstance(segment, Cascade) for segment in plan.segments) for plan in plans)


def test_a_frame_of_512_by_960_that_fits_in_no_layer():
    """Its first map alone is four times the memory; only cascades keep it off the DDR."""
    net = NetworkBuilder((1, 3, 512, 960))
    net.conv(4, 3, 2)
    before = net.conv(4, 3)
    net.conv(4, 3, groups=4)
    net.conv(4, 1, residual=before)
    net.conv(6, 3, 4)
    net.add(ops.MaxPool((2, 2), (2, 2), (0, 0, 0, 0)))
    graph = net.graph()
    made = compile_graph(graph, find_march("bayes"), options(128 << 10))
    plain = compile_graph(graph, find_march("bayes"), options(128 << 10, opt="O1"))
    assert cascades(graph, 128 << 10) > 0
    assert made.stats.ddr_bytes < 1.15 * made.stats.ddr_bytes_lower_bound
    assert plain.stats.ddr_bytes > 2 * made.stats.ddr_bytes
    inputs = random_inputs(graph, 1)
    np.testing.assert_array_equal(run_program(made.program, inputs)[net.last], execute(graph, inputs)[net.last])


def single_pixels(net):
    net.conv(13, (24, 11), padding_tlbr=(0, 0, 0, 0))
    net.conv(7)
    net.conv(9, 3)
    return ()


def long_residual(net):
    begin = net.conv(5, 3)
    for _ in range(6):
        net.conv(5, 3)
    net.conv(5, 1, residual=begin)
    return ()


def two_heads(net):
    trunk = net.conv(7, 3)
    one = net.conv(3, 3)
    net.conv(5, 3, 2, source=trunk)
    return (one, net.conv(2, 1))


def whole_average(net):
    net.conv(7, 3)
    net.avg_pool((24, 11), (24, 11))
    net.conv(3)
    return ()


@pytest.mark.parametrize("build", [single_pixels, long_residual, two_heads, whole_average])
@pytest.mark.parametrize("kibibytes", [4, 64])
def test_shapes_that_are_out_of_the_ordinary(build, kibibytes):
    net = NetworkBuilder((1, 3, 24, 11))
    graph = net.graph(*build(net))
    for opt in ("O0", "O1", "O2"):
        assert_equal(graph, compile_graph(graph, find_march("bayes"), options(kibibytes << 10, opt=opt)).program)
