"""The integer model as ONNX in QuantizeLinear / DequantizeLinear form.

Each node of the IR becomes dequantized inputs, the float operator, its clamp, and a quantized output::

    x (int8) -> DequantizeLinear -> Conv(weight, bias) -> Relu -> QuantizeLinear -> y (int8)
                                         weight = DequantizeLinear(int8), bias = DequantizeLinear(int32)

Zero points are 0, scales are constants. The multipliers come from float32 scales, so a runtime's result, given the same
integers, differs only where the exact value lies next to a tie (it rounds half to even, the IR half up). Tables are
looked up in integers, and moves are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from carkp_core.errors import ConfigError, GraphError
from carkp_core.export.onnx_builder import OnnxBuilder
from carkp_core.export.qdq_layers import INTEGER_WRITERS, WRITERS
from carkp_core.export.qdq_writer import QdqWriter
from carkp_core.ir.graph import Graph, Node

#: The first operator set with int8 per-channel dequantization, and the first with int16.
OPSET_INT8, OPSET_INT16, OPSET_MAX = 13, 21, 21


def export_qdq(graph: Graph, opset: int | None = None, output_names: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Write an integer model as QDQ ONNX: float inputs and outputs, static shapes.

    Parameters
    ----------
    graph:
        The integer model.
    opset:
        By default 13, and 21 when a tensor is int16.
    output_names:
        Names of the outputs in the graph's order; by default the tensors' own.

    Raises
    ------
    ConfigError
        An opset that cannot hold the model.
    GraphError
        A node without ONNX form: names it.
    """
    least = OPSET_INT16 if any(t.dtype == "int16" for t in graph.types().values()) else OPSET_INT8
    opset = opset or least
    if not least <= opset <= OPSET_MAX:
        raise ConfigError("this opset cannot hold the model", seen=str(opset), allowed=f"{least} to {OPSET_MAX}")
    if output_names and len(output_names) != len(graph.outputs):
        raise ConfigError(
            "the model has another number of outputs", seen=str(len(output_names)), allowed=str(len(graph.outputs))
        )
    writer = QdqWriter(graph, OnnxBuilder(opset))
    for declared in graph.inputs:
        name = writer.builder.unique(declared.name)
        writer.integers[declared.name] = writer.quantize(name, declared.type, f"{declared.name}.quantized")
    for node in graph.nodes:
        _write(writer, node)
    public = output_names or graph.outputs
    outputs = {}
    for tensor, name in zip(graph.outputs, public, strict=True):
        result = writer.builder.rename_output(writer.floats(tensor), name)
        outputs[result] = writer.types[tensor].shape
    shapes = {declared.name: declared.type.shape for declared in graph.inputs}
    return writer.builder.model(graph.name, shapes, outputs, {"digest": graph.digest(), **graph.metadata})


def _write(writer: QdqWriter, node: Node) -> None:
    if type(node.op) in INTEGER_WRITERS:
        writer.integers[node.name] = INTEGER_WRITERS[type(node.op)](writer, node, node.op)
        return
    write = WRITERS.get(type(node.op)) or _own_writer(node.op)
    if write is None:
        raise GraphError(
            f"operator {node.op.kind!r} has no ONNX form", where=f"{node.name} ({node.source})", seen=str(node.op)
        )
    y = writer.clipped(write(writer, node, node.op), node)
    writer.integers[node.name] = writer.quantize(y, node.type, node.name)


def _own_writer(op: Any) -> Callable[[QdqWriter, Node, Any], str] | None:
    """A plugin's operator writes itself: ``to_onnx(builder, names of the dequantized inputs, name) -> name``."""
    if not hasattr(op, "to_onnx"):
        return None
    return lambda writer, node, op: op.to_onnx(writer.builder, [writer.floats(n) for n in node.inputs], node.name)
