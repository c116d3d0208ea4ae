"""A node test's network as an integer model, and that as QDQ ONNX.

The network is calibrated on the test's own input, with int16 activations (int8 for a table for each channel); so the
integer model and its export compute the test's output up to a few steps (an interpolated table up to its curvature).
A misread attribute is off by far more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch

from carkp_core.export.onnx_qdq import export_qdq
from carkp_core.ir import operators as ops
from carkp_core.ir.arithmetic import dequantize, quantize
from carkp_core.ir.graph import Graph
from carkp_core.ir.reference import execute
from carkp_core.quant.convert import convert
from carkp_core.quant.prepare import prepare
from conformance.onnx_float import Network
from conformance.onnx_tests import Array, LeftOutError, NodeTest

#: Largest error, as a share of the largest expected value.
TOLERANCE, TABLE_TOLERANCE = 1 / 2000, 1 / 64
#: Functions with jumps, where half a step of the input may be a whole step of the output.
JUMPS = ("Floor", "Ceil", "Round", "Sign")


def integer_results(test: NodeTest, network: Network) -> Iterator[tuple[str, Array, float]]:
    """The test's output from the reference executor and from the QDQ model in ONNX Runtime, and the error allowed.

    Raises
    ------
    LeftOutError
        When the function has jumps.
    """
    if test.op_type in JUMPS or (test.op_type == "Shrink" and not test.attributes.get("bias")):
        raise LeftOutError("a function with jumps")
    graph = integer_graph(test.name, network, "int8" if test.op_type == "PRelu" else "int16")
    (output,), types = graph.outputs, graph.types()
    share = TABLE_TOLERANCE if any(isinstance(node.op, ops.Table) for node in graph.nodes) else TOLERANCE
    allowed = share * float(np.abs(test.expected).max())
    pairs = list(zip(graph.inputs, network.inputs, strict=True))
    integers = {declared.name: quantize(value, declared.type.scale, declared.type.dtype) for declared, value in pairs}
    yield "reference executor", dequantize(execute(graph, integers)[output], types[output].scale), allowed
    yield "QDQ export", run_onnx(export_qdq(graph), network.inputs, images=True), allowed


def integer_graph(name: str, network: Network, dtype: str) -> Graph:
    """The network, calibrated on its inputs and converted."""
    values = [torch.from_numpy(np.ascontiguousarray(value)) for value in network.inputs]
    examples = {f"input{index}": value for index, value in enumerate(values)}
    prepared = prepare(network.module.eval(), examples).eval()
    for tensor in (*prepared.inputs, *(step.name for step in prepared.steps)):
        prepared.layer(tensor).dtype = dtype
    prepared.start_observing()
    prepared(*values)
    prepared.finish_observing()
    return convert(prepared, name)


def run_onnx(model: Any, inputs: Sequence[Array], images: bool = False) -> Array:
    """A model's first output in ONNX Runtime, for inputs in the model's order; one image at a time for an export."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [declared.name for declared in session.get_inputs()]
    batches = [[value[i : i + 1] for value in inputs] for i in range(len(inputs[0]))] if images else [inputs]
    results = [session.run(None, dict(zip(names, batch, strict=True)))[0] for batch in batches]
    return np.concatenate(results) if images else np.asarray(results[0])
