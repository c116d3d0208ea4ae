"""The graph simulator equals the reference executor on random graphs, and refuses what it cannot run."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import RANGES, STEPS, Builder, Doubler, batch, small_network

from carkp_bpu.simulator.graph import profile, simulate
from carkp_bpu.simulator.packing import has_instructions
from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.ir.reference import execute


def assert_same(graph: Graph, inputs: dict[str, np.ndarray], **options) -> None:
    names = [node.name for node in graph.nodes]
    expected = execute(graph, inputs, names)
    for taps in ((), names):
        found = simulate(graph, **options)(inputs, taps)
        for name, value in found.items():
            assert value.dtype == expected[name].dtype
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=6),
    shape=st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)),
    dtype=st.sampled_from(["int8", "int8", "int16"]),
    images=st.integers(1, 3),
)
def test_random_graphs_equal_the_reference(seed, steps, shape, dtype, images):
    builder = Builder(seed, shape, dtype)
    for step in steps:
        getattr(builder, step)()
    graph = builder.graph()
    assert_same(graph, batch(graph, images, seed), threads=2)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_every_operator_on_every_route(step, dtype):
    for seed in range(4):
        builder = Builder(seed, (1, 4, 7, 9), dtype)
        getattr(builder, step)()
        graph = builder.graph()
        for int8_multiply in (True, False):
            assert_same(graph, batch(graph, 2), threads=1, int8_multiply=int8_multiply, vectors=False)
        if has_instructions():
            assert_same(graph, batch(graph, 2), threads=1, vectors=True)


@pytest.mark.parametrize("images", [0, 1, 2, 17, 33])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_batch_on_any_threads(images, threads):
    graph = small_network(12)
    inputs = batch(graph, images)
    expected = execute(graph, batch(graph, max(images, 1)))
    found = simulate(graph, threads)(inputs)
    for name in graph.outputs:
        assert found[name].shape == (images, *graph.types()[name].shape[1:])
        if images:
            np.testing.assert_array_equal(found[name], expected[name])


def test_stages_of_different_parts_agree(monkeypatch):
    from carkp_bpu.simulator import plan

    graph = small_network()
    inputs = batch(graph, 11)
    expected = execute(graph, inputs)
    for part_bytes in (1, 10_000, 60_000):
        monkeypatch.setattr(plan, "PART_BYTES", part_bytes)
        np.testing.assert_array_equal(simulate(graph, 1)(inputs)[graph.outputs[0]], expected[graph.outputs[0]])


def test_many_callers_share_one_executor():
    graph = small_network(12)
    executor = simulate(graph, 2)
    jobs = [batch(graph, 1 + seed % 5, seed) for seed in range(12)]
    expected = [execute(graph, job)[graph.outputs[0]] for job in jobs]
    found: list = [None] * len(jobs)

    def run(index: int) -> None:
        found[index] = executor(jobs[index])[graph.outputs[0]]

    callers = [threading.Thread(target=run, args=(index,)) for index in range(len(jobs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for index in range(len(jobs)):
        np.testing.assert_array_equal(found[index], expected[index])


def test_a_lone_slice_runs_on_the_callers_thread():
    graph = small_network(12)
    executor = simulate(graph, 2, vectors=False)
    before = set(threading.enumerate())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        executor(batch(graph, 1))
        assert set(threading.enumerate()) <= before
    finally:
        torch.set_num_threads(threads)


def test_profiles_name_every_step():
    costs = profile(simulate(small_network(12), 1), repeats=1)
    graph = small_network(12)
    assert {cost.node for cost in costs} <= {node.name for node in graph.nodes}
    assert all(cost.seconds > 0 for cost in costs)
    assert any(cost.macs for cost in costs if cost.kind == "conv_transpose2d")


def test_copies_and_pickles_work_alike():
    graph = small_network(12)
    executor = simulate(graph, 2)
    inputs = batch(graph, 2)
    expected = executor(inputs)[graph.outputs[0]]
    for twin in (copy.deepcopy(executor), pickle.loads(pickle.dumps(executor))):
        assert twin.threads == 2
        np.testing.assert_array_equal(twin(inputs)[graph.outputs[0]], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_threads_of_its_own():
    graph = small_network(12)
    executor = simulate(graph, 2)
    inputs = batch(graph, 2)
    expected = executor(inputs)[graph.outputs[0]]
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(executor(inputs)[graph.outputs[0]], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_torch_keeps_its_threads():
    before = torch.get_num_threads()
    graph = small_network(12)
    simulate(graph, 2)(batch(graph, 4))
    assert torch.get_num_threads() == before


def test_results_are_the_callers_own():
    graph = small_network(12)
    executor = simulate(graph, 1)
    first = executor(batch(graph, 1))[graph.outputs[0]]
    kept = first.copy()
    executor(batch(graph, 1, seed=9))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("options", [{"vectors": None}, {"vectors": False}, {"vectors": False, "int8_multiply": False}])
def test_nothing_is_allocated_but_the_results(dtype, options):
    for step in STEPS:
        builder = Builder(3, (1, 8, 24, 24), dtype)
        getattr(builder, step)()
        executor = simulate(builder.graph(), 1, **options)
        if executor.reference_nodes:
            continue
        inputs = batch(builder.graph(), 8)
        executor(inputs)
        tracemalloc.start()
        results = executor(inputs)
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most_bytes - sum(value.nbytes for value in results.values()) < 10_000, step


def test_threads_allocate_nothing_either():
    graph = small_network(12)
    executor = simulate(graph, 2)
    inputs = batch(graph, 40)
    for _ in range(5):
        executor(inputs)
    most_bytes = []
    for _ in range(5):  # a thread may meet its first slice late
        tracemalloc.start()
        results = executor(inputs)
        most_bytes.append(tracemalloc.get_traced_memory()[1] - sum(value.nbytes for value in results.values()))
        tracemalloc.stop()
    assert min(most_bytes) < 20_000


GENERIC = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
import numpy as np
from random_graphs import batch, small_network
from carkp_bpu.simulator.graph import simulate
from carkp_bpu.simulator.packing import has_instructions
from carkp_core.ir.reference import execute
assert not has_instructions()
graph = small_network(12)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        found = simulate(graph, 1)(batch(graph, 2))
assert len([w for w in said if "no AVX-512 VNNI" in str(w.message)]) == 1, said
np.testing.assert_array_equal(found[graph.outputs[0]], execute(graph, batch(graph, 2))[graph.outputs[0]])
"""


def test_a_cpu_without_vector_instructions_gives_the_same_integers(tmp_path):
    """numba compiles for a CPU of the first 64-bit kind, which this one can be too."""
    environment = {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", GENERIC, str(Path(__file__).parent)]
    subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=300)


def test_int32_results_equal_the_reference():
    """Accumulators as they are, products and sums of them, and an interpolated table with its fractional bits."""
    rng, channels = np.random.default_rng(3), 6
    image, wide = TensorType((1, channels, 5, 4), "int16", 1.0), TensorType((1, channels, 5, 4), "int32", 1.0)
    limits = (-(1 << 31), (1 << 31) - 1)
    weight = rng.integers(-128, 128, (channels, channels, 3, 3))
    bias, factor = rng.integers(-(1 << 30), 1 << 30, channels), (np.full(channels, 1 << 30), np.full(channels, 30))
    conv = ops.Conv2d(weight, bias, *factor, *limits, padding_tlbr=(1, 1, 1, 1))
    term = ops.Term(1 << 30, 30)
    nodes = (
        Node("table", ops.Table(rng.integers(-32768, 32768, 513).astype(np.int16), "", 0), ("x",), wide),
        Node("conv", conv, ("x",), wide),
        Node("product", ops.Mul(1, 17, *limits), ("table", "conv"), wide),
        Node("whole", ops.Mul(1, 0, *limits), ("table", "conv"), wide),
        Node("sum", ops.Add((term, attrs.evolve(term, negative=True)), *limits), ("product", "conv"), wide),
    )
    graph = Graph("wide", (GraphInput("x", image),), nodes, ("whole", "sum"))
    assert_same(graph, batch(graph, 3))


def test_sums_beyond_int32_are_exact():
    channels = 2048
    weight = np.full((4, channels, 3, 3), 127, dtype=np.int8)
    op = ops.Conv2d(weight, np.zeros(4), np.full(4, 1 << 30), np.full(4, 56), -32768, 32767)
    builder = Builder(0, (1, channels, 4, 4), "int16")
    builder.add(op)
    graph = builder.graph()
    inputs = {"img": np.full((1, channels, 4, 4), -32768, dtype=np.int16)}
    assert_same(graph, inputs, threads=1)


def test_a_plugins_operator_runs_by_its_own_definition():
    builder = Builder(0, (1, 3, 5, 5), "int8")
    builder.conv2d()
    name = builder.add(Doubler())
    graph = builder.graph()
    assert simulate(graph, 1).reference_nodes == (name,)
    assert_same(graph, batch(graph, 2), threads=1)


def test_a_plugins_kernel_runs_in_place_of_its_definition():
    builder = Builder(0, (1, 3, 5, 5), "int8")
    builder.conv2d()
    builder.add(Doubler())
    graph = builder.graph()
    met = []

    def kernel(op, inputs):
        met.append(type(op))
        return op.execute(inputs)

    found = simulate(graph, 1, kernels={"doubler": kernel})(batch(graph, 2))
    np.testing.assert_array_equal(found[graph.outputs[0]], execute(graph, batch(graph, 2))[graph.outputs[0]])
    assert met == [Doubler]


def test_core_operators_have_fast_kernels():
    for dtype in RANGES:
        builder = Builder(3, (1, 4, 8, 8), dtype)
        for step in STEPS:
            if step != "transpose":
                getattr(builder, step)()
        grouped = {n.name for n in builder.nodes if isinstance(n.op, ops.Conv2d) and n.op.groups > 1}
        assert set(simulate(builder.graph(), 1).reference_nodes) <= grouped


def test_wrong_inputs_and_taps_are_refused_at_the_door():
    graph = small_network(12)
    executor = simulate(graph, 1)
    with pytest.raises(GraphError, match="'img' is missing"):
        executor({})
    with pytest.raises(GraphError, match="no tensor 'nothing'"):
        executor(batch(graph, 1), ["nothing"])
    with pytest.raises(ValueError, match="at least 1"):
        simulate(graph, 0)


def test_opaque_operators_are_refused_by_name():
    builder = Builder(0, (1, 3, 5, 5), "int8")
    builder.add(ops.Opaque("torch.sort", (1, 3, 5, 5)))
    with pytest.raises(GraphError, match=r"torch\.sort has no integer form"):
        simulate(builder.graph())
