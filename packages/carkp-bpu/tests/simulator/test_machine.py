"""The machine equals the reference executor on whatever the compiler makes of random networks."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.samples import NetworkBuilder, efficientnet_keypoints, random_inputs
from carkp_bpu.hbm.program import HbmProgram, parse_program
from carkp_bpu.march import MARCHES, find_march
from carkp_bpu.simulator.machine import run_program, traffic
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph
from carkp_core.ir.reference import execute

LEVELS = ("O0", "O1", "O2")


def options(march: str = "bayes", opt: str = "O2", sram_bytes: int | None = None) -> CompileOptions:
    return CompileOptions(march=march, name="net", hbm="net.hbm", out_dir=".", opt=opt, sram_bytes=sram_bytes)


def compiled(graph: Graph, **changes) -> HbmProgram:
    chosen = options(**changes)
    made = compile_graph(graph, find_march(chosen.march), chosen)
    program = parse_program(made.data)
    assert traffic(program).ddr_bytes == made.stats.ddr_bytes
    return program


def assert_equal(graph: Graph, program: HbmProgram, frames: int = 2, taps: bool = True) -> None:
    """Outputs and every tensor in between."""
    inputs = random_inputs(graph, frames)
    names = [node.name for node in graph.nodes] if taps else []
    expected = execute(graph, inputs, names)
    seen = run_program(program, inputs, names)
    assert set(seen) == set(expected)
    for name, value in expected.items():
        assert seen[name].dtype == value.dtype
        # A constant has one frame in the reference.
        np.testing.assert_array_equal(seen[name], np.broadcast_to(value, seen[name].shape), err_msg=name)


def grow(net: NetworkBuilder, steps: int) -> None:
    """Add operators drawn from the network's own generator."""
    rng = net.rng

    def size(lo: int, hi: int) -> int:
        return int(rng.integers(lo, hi + 1))

    for _ in range(steps):
        kind = rng.choice(
            ["conv", "depthwise", "grouped", "deconv", "pool", "add", "shape", "resize", "table", "concat"]
        )
        _, channels, height, width = net.shape()
        before, dtype = net.last, net.types[net.last].dtype
        if kind == "conv":
            net.conv(size(1, 21), (size(1, min(4, height)), size(1, min(4, width))), (size(1, 3), size(1, 3)))
        elif kind == "depthwise":
            net.conv(channels, size(1, min(5, height, width)), groups=channels, residual=None, lo=-128)
        elif kind == "grouped" and channels % 2 == 0:
            net.conv(6, 3 if min(height, width) > 2 else 1, groups=2, dilation_hw=(1, 1))
        elif kind == "deconv" and height * width < 600:
            kernel, stride = size(1, 4), size(1, 3)
            pad = min(size(0, 1), (kernel - 1) // 2)
            net.deconv(size(1, 9), kernel, stride, padding_tlbr=(pad,) * 4)
        elif kind == "pool":
            k = (size(1, min(3, height)), size(1, min(3, width)))
            if rng.random() < 0.5:
                net.add(ops.MaxPool(k, (size(1, 2), size(1, 2)), (k[0] // 2, k[1] // 2, 0, k[1] // 2)))
            else:
                net.avg_pool(k, (size(1, 2), size(1, 2)), (k[0] // 2, 0, 0, k[1] // 2), bool(rng.random() < 0.5))
        elif kind == "add":
            other = net.constant((1, channels, 1, 1), dtype) if rng.random() < 0.5 else before
            if rng.random() < 0.5:
                net.add_tensors(before, other)
            else:
                net.mul(before, other)
        elif kind == "shape":
            move(net, size(0, 4))
        elif kind == "resize" and height * width < 600:
            net.resize(str(rng.choice(["nearest", "bilinear"])), (size(1, 2 * height), size(1, 2 * width)))
        elif kind == "table":
            net.table(per_channel=dtype == "int8" and bool(rng.random() < 0.5))
        elif kind == "concat" and channels * height * width < 4000:
            net.concat(size(1, 3), before, before)


def move(net: NetworkBuilder, choice: int) -> None:
    """Move data without computing."""
    _, channels, height, width = net.shape()
    if choice == 0:
        net.add(ops.Pad((1, 0, 2, 1), -3))
    elif choice == 1 and channels > 1:
        net.add(ops.Slice(1, 1, channels, 2))
    elif choice == 2:
        net.add(ops.Slice(3, 0, width, 2))
    elif choice == 3:
        net.add(ops.Transpose((0, 2, 3, 1)))
    else:
        net.add(ops.Reshape((1, channels * height, width, 1)))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 7),
    march=st.sampled_from([march.name for march in MARCHES]),
    opt=st.sampled_from(LEVELS),
    sram_bytes=st.sampled_from([None, 16384, 4096, 1536]),
    dtype=st.sampled_from(["int8", "int8", "int16"]),
)
def test_random_networks_run_bit_equal(seed, steps, march, opt, sram_bytes, dtype):
    rng = np.random.default_rng(seed)
    shape = (1, int(rng.integers(1, 9)), int(rng.integers(1, 20)), int(rng.integers(1, 20)))
    net = NetworkBuilder(shape, seed, dtype)
    net.conv(int(rng.integers(1, 9)), 1)
    grow(net, steps)
    graph = net.graph()
    try:
        program = compiled(graph, march=march, opt=opt, sram_bytes=sram_bytes)
    except BackendError as error:
        refusal = str(error)
    else:
        assert_equal(graph, program)
        return
    assert "smallest tile" in refusal
    assert sram_bytes is not None


@pytest.mark.parametrize("opt", LEVELS)
@pytest.mark.parametrize("sram_bytes", [None, 65536])
def test_the_shipped_network_runs_bit_equal(opt, sram_bytes):
    graph = efficientnet_keypoints(64)
    assert_equal(graph, compiled(graph, opt=opt, sram_bytes=sram_bytes), frames=3)


def test_a_long_batch_equals_its_frames():
    net = NetworkBuilder((1, 3, 9, 9))
    net.conv(5, 3)
    graph = net.graph()
    program = compiled(graph)
    inputs = random_inputs(graph, 37)
    whole = run_program(program, inputs)[net.last]
    single = [run_program(program, {"img": inputs["img"][i : i + 1]})[net.last] for i in (0, 17, 36)]
    np.testing.assert_array_equal(whole[[0, 17, 36]], np.concatenate(single))
    np.testing.assert_array_equal(whole, execute(graph, inputs)[net.last])


def test_a_window_higher_than_the_memory_is_summed_in_parts():
    net = NetworkBuilder((1, 2, 64, 40))
    net.avg_pool((64, 40), (1, 1))
    graph = net.graph()
    program = compiled(graph, sram_bytes=2048)
    assert "partial_pool" in program.description.features
    assert_equal(graph, program)


def test_two_outputs_names_of_one_storage_and_an_input_as_output():
    net = NetworkBuilder((1, 4, 6, 5))
    first = net.conv(8, 3)
    flat = net.add(ops.Reshape((1, 8, 30)), first)
    net.conv(2, 1, source=first)
    graph = net.graph(flat, first, "img", net.last)
    assert_equal(graph, compiled(graph), taps=False)


def test_constants_feed_convolutions_and_leave_as_outputs():
    net = NetworkBuilder((1, 4, 6, 5))
    fixed = net.constant((1, 4, 6, 5))
    net.conv(4, 3, source="img", residual=fixed)
    net.add_tensors(net.last, net.conv(4, 3, groups=4, source=fixed))
    graph = net.graph(net.last, fixed)
    for opt in LEVELS:
        assert_equal(graph, compiled(graph, opt=opt))


def test_no_frames_give_no_frames():
    net = NetworkBuilder((1, 3, 9, 9))
    net.conv(5, 3)
    graph = net.graph()
    assert run_program(compiled(graph), random_inputs(graph, 0))[net.last].shape == (0, 5, 9, 9)


def test_wrong_inputs_and_unknown_taps_are_named():
    net = NetworkBuilder((1, 3, 9, 9))
    net.conv(5, 3)
    graph = net.graph()
    program = compiled(graph)
    good = random_inputs(graph, 1)
    with pytest.raises(BackendError, match="'img' is missing"):
        run_program(program, {})
    with pytest.raises(BackendError, match="another type") as caught:
        run_program(program, {"img": good["img"].astype(np.int16)})
    assert caught.value.allowed == "int8 (N, 3, 9, 9)"
    assert caught.value.where == "net"
    with pytest.raises(BackendError, match="'img' has another shape") as caught:
        run_program(program, {"img": good["img"][:, :, 1:]})
    assert caught.value.seen == "int8 (1, 3, 8, 9)"
    assert "resize or pad" in str(caught.value.remedy)
    with pytest.raises(BackendError, match="the program has no input 'image'"):
        run_program(program, good | {"image": good["img"]})
    with pytest.raises(BackendError, match="no tensor 'nowhere'"):
        run_program(program, good, ["nowhere"])


def test_a_program_without_debug_table_still_runs():
    net = NetworkBuilder((1, 3, 9, 9))
    net.conv(5, 3)
    graph = net.graph()
    program = compiled(graph)
    bare = attrs.evolve(program, debug=attrs.evolve(program.debug, instructions=(), pieces=()))
    assert_equal(graph, bare, taps=False)
