"""The torch executor equals the reference executor, on CPU tensors and on a GPU where there is one."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import RANGES, STEPS, Builder, Doubler, batch, small_network

from carkp_bpu.compiler.samples import NetworkBuilder, random_inputs
from carkp_bpu.simulator import torch_graph
from carkp_bpu.simulator.graph import simulate
from carkp_bpu.simulator.torch_graph import TorchExecutor
from carkp_core.errors import BackendError, GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.ir.reference import execute

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def assert_same(graph: Graph, inputs: dict[str, np.ndarray], device: str = "cpu", **options) -> None:
    names = [node.name for node in graph.nodes]
    expected = execute(graph, inputs, names)
    found = TorchExecutor(graph, device, **options)(inputs, names)
    for name in names:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=6),
    shape=st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)),
    dtype=st.sampled_from(["int8", "int8", "int16"]),
    images=st.integers(1, 3),
    int8_multiply=st.sampled_from([None, False]),
)
def test_random_graphs_equal_the_reference(device, seed, steps, shape, dtype, images, int8_multiply):
    builder = Builder(seed, shape, dtype)
    for step in steps:
        getattr(builder, step)()
    graph = builder.graph()
    assert_same(graph, batch(graph, images, seed), device, int8_multiply=int8_multiply)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_every_operator_on_every_route(device, step, dtype):
    for seed in range(4):
        builder = Builder(seed, (1, 4, 7, 9), dtype)
        getattr(builder, step)()
        for int8_multiply in (None, False):
            assert_same(builder.graph(), batch(builder.graph(), 2), device, int8_multiply=int8_multiply)


def test_sums_beyond_int32_are_exact():
    channels = 2048
    weight = np.full((4, channels, 3, 3), 127, dtype=np.int8)
    op = ops.Conv2d(weight, np.zeros(4), np.full(4, 1 << 30), np.full(4, 56), *RANGES["int16"])
    builder = Builder(0, (1, channels, 4, 4), "int16")
    builder.add(op)
    assert_same(builder.graph(), {"img": np.full((1, channels, 4, 4), -32768, dtype=np.int16)})


@pytest.mark.parametrize("images", [0, 1, 5, 11])
def test_a_batch_goes_in_slices(images, monkeypatch):
    monkeypatch.setattr(torch_graph, "SLICE_IMAGES", 5)
    graph = small_network(12)
    found = TorchExecutor(graph, "cpu")(batch(graph, images))
    np.testing.assert_array_equal(found[graph.outputs[0]], simulate(graph, 1)(batch(graph, images))[graph.outputs[0]])


def test_a_constant_is_returned_once():
    image = GraphInput("img", TensorType((1, 4, 2, 2), "int8", 1.0))
    constant = Node("c", ops.Constant(np.int8([[[[3]]]])), (), TensorType((1, 1, 1, 1), "int8", 1.0))
    graph = Graph("constant", (image,), (constant,), ("c",))
    found = TorchExecutor(graph, "cpu")({"img": np.zeros((3, 4, 2, 2), np.int8)})
    assert found["c"].tolist() == [[[[3]]]]


def test_a_plugins_operator_runs_by_its_definition_or_its_kernel():
    builder = Builder(0, (1, 3, 5, 5), "int8")
    builder.conv2d()
    builder.add(Doubler())
    graph = builder.graph()
    met = []

    def kernel(op, inputs):
        met.append(op)
        return op.execute(inputs)

    assert_same(graph, batch(graph, 2))
    assert_same(graph, batch(graph, 2), kernels={"doubler": kernel})
    assert len(met) == 1


def test_any_number_of_threads_may_call():
    graph = small_network(12)
    executor = TorchExecutor(graph, "cpu")
    found: list = [None] * 8

    def run(index: int) -> None:
        found[index] = executor(batch(graph, 1 + index % 3, index))[graph.outputs[0]]

    callers = [threading.Thread(target=run, args=(index,)) for index in range(len(found))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for index, result in enumerate(found):
        expected = execute(graph, batch(graph, 1 + index % 3, index))[graph.outputs[0]]
        np.testing.assert_array_equal(result, expected)


def test_copies_and_pickles_work_alike():
    graph = small_network(12)
    executor = TorchExecutor(graph, "cpu", int8_multiply=False)
    expected = executor(batch(graph, 2))[graph.outputs[0]]
    for twin in (copy.deepcopy(executor), pickle.loads(pickle.dumps(executor))):
        np.testing.assert_array_equal(twin(batch(graph, 2))[graph.outputs[0]], expected)


def test_what_cannot_be_run_is_refused():
    graph = small_network(12)
    with pytest.raises(BackendError, match="no such device"):
        TorchExecutor(graph, "cuda:99")
    with pytest.raises(GraphError, match="no tensor 'nothing'"):
        TorchExecutor(graph, "cpu")(batch(graph, 1), ["nothing"])
    with pytest.raises(GraphError, match="'img' is missing"):
        TorchExecutor(graph, "cpu")({})
    builder = Builder(0, (1, 3, 5, 5), "int8")
    builder.add(ops.Opaque("torch.sort", (1, 3, 5, 5)))
    with pytest.raises(GraphError, match=r"torch\.sort has no integer form"):
        TorchExecutor(builder.graph(), "cpu")


def test_a_constant_among_concatenated_tensors_stands_in_every_image():
    network = NetworkBuilder((1, 4, 6, 6))
    network.concat(1, "img", network.constant((1, 4, 6, 6)))
    graph = network.graph()
    inputs = random_inputs(graph, 3)
    alone = [execute(graph, {"img": inputs["img"][i : i + 1]}) for i in range(3)]
    wanted = {name: np.concatenate([one[name] for one in alone]) for name in graph.outputs}
    for results in (execute(graph, inputs), simulate(graph, 1)(inputs), TorchExecutor(graph, "cpu")(inputs)):
        for name, value in wanted.items():
            np.testing.assert_array_equal(results[name], value)
