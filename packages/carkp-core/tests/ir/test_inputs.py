"""Batches are refused at the door with what to do."""

from __future__ import annotations

import numpy as np
import pytest

from carkp_core.errors import GraphError
from carkp_core.ir.graph import Graph, GraphInput, TensorType
from carkp_core.ir.inputs import check_inputs

IMAGE = GraphInput("img", TensorType((1, 3, 12, 12), "int8", 1 / 128))
VECTOR = GraphInput("vector", TensorType((1, 5), "int16", 0.5))
GRAPH = Graph("two", (IMAGE, VECTOR), (), ("img",))


def inputs(images: int = 2) -> dict[str, np.ndarray]:
    return {"img": np.zeros((images, 3, 12, 12), np.int8), "vector": np.zeros((images, 5), np.int16)}


def test_good_inputs_pass_with_their_number():
    checked, images = check_inputs(GRAPH, inputs(7))
    assert images == 7
    assert set(checked) == {"img", "vector"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 3, 12, 12), np.float32), "quantize it first"),
        (np.zeros((2, 3, 12, 12), np.uint8), "centre it first"),
        (np.zeros((2, 12, 12, 3), np.int8), "looks like NHWC"),
        (np.zeros((3, 12, 12), np.int8), "add the batch dimension"),
        (np.zeros((2, 3, 12, 13), np.int8), r"another shape\n.*\n.*int8 \(N, 3, 12, 12\)\n.*resize or pad"),
        (np.zeros((2, 3, 12, 13), np.int16), "another type and shape"),
        (np.zeros((2, 3, 12, 12), np.int32), "another type\n"),
        ([[1]], "not a numpy array"),
    ],
)
def test_a_wrong_array_is_refused_with_what_to_do(value, message):
    with pytest.raises(GraphError, match=message):
        check_inputs(GRAPH, inputs() | {"img": value})


def test_wrong_names_and_numbers_are_refused():
    with pytest.raises(GraphError, match="'vector' is missing"):
        check_inputs(GRAPH, {"img": inputs()["img"]})
    with pytest.raises(GraphError, match="no input 'image'"):
        check_inputs(GRAPH, inputs() | {"image": inputs()["img"]})
    with pytest.raises(GraphError, match="differ in their number of images"):
        check_inputs(GRAPH, inputs() | {"img": inputs(3)["img"]})
