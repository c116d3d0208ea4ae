"""A prepared program computes what the reference does, on the vector kernels and without them."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carkp_bpu.compiler.compile import compile_graph
from carkp_bpu.compiler.samples import NetworkBuilder, efficientnet_keypoints, random_inputs
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.march import find_march
from carkp_bpu.simulator.lowering.fused_conv import vector_kernels_run
from carkp_bpu.simulator.machine import inspect, run_program
from carkp_bpu.simulator.machine_steps import prepare
from carkp_core.backend import CompileOptions
from carkp_core.errors import BackendError
from carkp_core.ir.graph import Graph
from carkp_core.ir.reference import execute

needs_vectors = pytest.mark.skipif(not vector_kernels_run(), reason="this CPU has no vector kernels")
ROUTES = [False, pytest.param(True, marks=needs_vectors)]


def compiled(graph: Graph, sram_bytes: int | None = None, opt: str = "O2") -> HbmProgram:
    options = CompileOptions(march="bayes", name="net", hbm="net.hbm", out_dir=".", opt=opt, sram_bytes=sram_bytes)
    return compile_graph(graph, find_march("bayes"), options).program


def assert_equal(graph: Graph, program: HbmProgram, frames: int, vectors: bool) -> None:
    inputs = random_inputs(graph, frames)
    expected = execute(graph, inputs)
    for name, value in run_program(program, inputs, vectors=vectors).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.fixture(scope="module")
def shipped() -> tuple[Graph, dict[str, np.ndarray], np.ndarray]:
    """The shipped network at 32x32, more frames than a batch, and what the reference makes of them."""
    graph = efficientnet_keypoints(32)
    inputs = random_inputs(graph, 17)
    return graph, inputs, execute(graph, inputs)[graph.outputs[0]]


@pytest.mark.parametrize("sram_bytes", [96 << 10, None])
def test_the_shipped_network_on_both_routes(shipped, sram_bytes):
    graph, inputs, expected = shipped
    program = compiled(graph, sram_bytes)
    for vectors in {False, vector_kernels_run()}:
        np.testing.assert_array_equal(run_program(program, inputs, vectors=vectors)[graph.outputs[0]], expected)


@pytest.mark.parametrize("vectors", ROUTES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_convolutions_of_every_shape_on_both_routes(vectors, data):
    """Strides, uneven padding, groups, phases, residuals, channels that fill no vector, rings that wrap."""

    def size(lo: int, hi: int) -> int:
        return data.draw(st.integers(lo, hi))

    net = NetworkBuilder((1, size(1, 20), size(4, 21), size(4, 21)), data.draw(st.integers(0, 2**32 - 1)))
    begin = net.conv(size(1, 70), size(1, 3))
    channels = net.shape()[1]
    kind = data.draw(st.sampled_from(["conv", "depthwise", "grouped", "deconv", "residual"]))
    if kind == "conv":
        net.conv(size(1, 70), (size(1, 4), size(1, 4)), (size(1, 3), size(1, 3)))
    elif kind == "depthwise":
        net.conv(channels, size(1, 4), size(1, 2), groups=channels)
    elif kind == "grouped":
        net.conv(2 * size(1, 3), 1, source=begin)
        net.conv(2 * size(1, 20), 3, groups=2)
    elif kind == "deconv":
        net.deconv(size(1, 40), size(2, 4), size(1, 3), padding_tlbr=(1, 0, 1, 0))
    else:
        net.conv(channels, 1, residual=begin)
    net.conv(size(1, 9), 1)
    graph = net.graph()
    try:
        program = compiled(graph, data.draw(st.sampled_from([None, 24 << 10, 8 << 10])))
    except BackendError as error:
        refusal = str(error)
    else:
        assert_equal(graph, program, size(1, 18), vectors)
        return
    assert "smallest tile" in refusal


@needs_vectors
def test_a_result_over_its_own_operand_reads_everything_first():
    """A 1x1 convolution that writes over its residual, and one over its input: the definition is read, then write."""
    net = NetworkBuilder((1, 8, 12, 12))
    begin = net.conv(8, 3)
    net.conv(8, 1, source=begin, residual=begin)
    graph = net.graph()
    program = compiled(graph)
    index = max(i for i, one in enumerate(program.instructions) if isinstance(one, isa.Conv))
    conv = program.instructions[index]
    moved = attrs.evolve(conv, output=attrs.evolve(conv.output, address=conv.residual.map.address))
    store = max(i for i, one in enumerate(program.instructions) if isinstance(one, isa.Store))
    shift = conv.residual.map.address - conv.output.address
    instructions = list(program.instructions)
    instructions[index] = moved
    instructions[store] = attrs.evolve(instructions[store], sram=instructions[store].sram + shift)
    assert_equal(graph, program.with_instructions(instructions), 3, True)


@pytest.mark.parametrize("vectors", ROUTES)
def test_numbers_that_are_no_rescale_are_refused(vectors):
    net = NetworkBuilder((1, 3, 8, 8))
    net.conv(6, 3)
    program = compiled(net.graph())
    index = next(i for i, one in enumerate(program.instructions) if isinstance(one, isa.Conv))
    conv = program.instructions[index]
    load = next(one for one in program.instructions if isinstance(one, isa.Load) and one.sram <= conv.params
                and conv.params < one.sram + one.dims[3])  # fmt: skip
    shifts = load.ddr + conv.params - load.sram + 8 * conv.output.channels
    constants = program.constants[:shifts] + bytes([77]) + program.constants[shifts + 1 :]
    with pytest.raises(BackendError, match="hold no rescale") as caught:
        run_program(
            attrs.evolve(program, constants=constants), {"img": np.zeros((1, 3, 8, 8), np.int8)}, vectors=vectors
        )
    assert str(caught.value.where).startswith(f"instruction {index}, layer")


def test_steps_that_touch_much_take_few_frames():
    program = compiled(efficientnet_keypoints(128))
    ready = prepare(program, inspect(program), 16, vector_kernels_run())
    frames = [stage.frames for stage in ready.stages]
    assert min(frames) < max(frames) == 16
    done = [step.index for stage in ready.stages for step in stage.steps]
    assert done == sorted(set(done))
    skipped = set(range(len(program.instructions))) - set(done)
    assert skipped
    assert all(isinstance(program.instructions[index], isa.Load) for index in skipped)
