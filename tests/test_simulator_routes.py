"""The shipped networks give the reference executor's integers on every route of the simulator, through torch too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from carkp_bpu.simulator.graph import simulate
from carkp_bpu.simulator.torch_graph import TorchExecutor
from carkp_core.ir.reference import execute
from carkp_core.session import open_session

torch.set_num_threads(1)

IMAGES = 2


@pytest.fixture(scope="module", params=["quickstart", "keypoint_efficientnetb0_carfusion"])
def answered(request: pytest.FixtureRequest) -> Any:
    """A network's integer model with random weights, images with extremes, and every tensor of the reference."""
    graph = open_session(request.param).fast_graph()
    (declared,) = graph.inputs
    images = np.random.default_rng(0).integers(-128, 128, (IMAGES, *declared.type.shape[1:])).astype(np.int8)
    images[:, :, :9], images[:, :, 9:20] = -128, 127
    inputs = {declared.name: images}
    return graph, inputs, execute(graph, inputs, [node.name for node in graph.nodes])


@pytest.mark.parametrize(
    "options",
    [{}, {"vectors": False}, {"vectors": False, "int8_multiply": False}],
    ids=["vector kernels", "int8 multiply", "float products"],
)
def test_every_tensor_on_every_route(answered: Any, options: dict[str, bool]) -> None:
    graph, inputs, expected = answered
    executor = simulate(graph, 2, **options)
    assert executor.reference_nodes == ()
    found = executor(inputs, list(expected))
    assert {name for name, value in expected.items() if not np.array_equal(found[name], value)} == set()
    for name in graph.outputs:
        np.testing.assert_array_equal(executor(inputs)[name], expected[name])


@pytest.mark.parametrize("int8_multiply", [None, False])
def test_every_tensor_through_torch(answered: Any, int8_multiply: bool | None) -> None:
    graph, inputs, expected = answered
    found = TorchExecutor(graph, "cpu", int8_multiply)(inputs, list(expected))
    assert {name for name, value in expected.items() if not np.array_equal(found[name], value)} == set()
