"""The layers of an integer graph, and the least that its DDR traffic can be."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from carkp_bpu.checker.rules.movement import reshape_moves_nothing, transpose_moves_nothing
from carkp_bpu.checker.rules.tensors import byte_count
from carkp_bpu.perf.cost import ConvWork
from carkp_bpu.perf.layers import PARAMETER_BYTES, Layer
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, Node, TensorType


def layers_of(graph: Graph, only: Collection[str] | None = None) -> list[Layer]:
    """One layer for each node but constants; ``only`` names the nodes to keep (those that a march runs)."""
    types = graph.types()
    kept = (node for node in graph.nodes if node.op.kind != "constant" and (only is None or node.name in only))
    return [layer_of(node, types) for node in kept]


def layer_of(node: Node, types: Mapping[str, TensorType]) -> Layer:
    """A node's layer."""
    inputs = [types[name] for name in node.inputs]
    input_bytes = sum(map(byte_count, inputs))
    work = None
    if isinstance(node.op, (ops.Conv2d, ops.ConvTranspose2d)):
        work = _conv_work(node, inputs[0], input_bytes)
    return Layer(
        name=node.name,
        kind=node.op.kind,
        conv=work,
        weight_bytes=constant_bytes(node),
        input_bytes=input_bytes,
        output_bytes=byte_count(node.type),
        source=str(node.source),
        elements=math.prod(node.type.shape),
        free=_is_free(node, inputs),
    )


def constant_bytes(node: Node) -> int:
    """Bytes of a node's constants: a byte a weight, bias, multiplier and shift of each output channel; tables."""
    op = node.op
    if isinstance(op, ops.Conv2d):
        return int(op.weight.size) + op.weight.shape[0] * PARAMETER_BYTES
    if isinstance(op, ops.ConvTranspose2d):
        return int(op.weight.size) + op.weight.shape[1] * op.groups * PARAMETER_BYTES
    if isinstance(op, ops.Table):
        return int(op.table.nbytes)
    return 0


def ddr_bytes_lower_bound(graph: Graph) -> int:
    """Bytes that a frame can't do without: each weight and each output channel's parameters, inputs and outputs, once.

    Tables and other small constants, alignment and the instructions are not counted.
    """
    types = graph.types()
    convolutions = (node for node in graph.nodes if isinstance(node.op, (ops.Conv2d, ops.ConvTranspose2d)))
    ends = [i.type for i in graph.inputs] + [types[name] for name in dict.fromkeys(graph.outputs)]
    return sum(map(constant_bytes, convolutions)) + sum(map(byte_count, ends))


def _conv_work(node: Node, entering: TensorType, input_bytes: int) -> ConvWork:
    op = node.op
    assert isinstance(op, (ops.Conv2d, ops.ConvTranspose2d))
    transposed = isinstance(op, ops.ConvTranspose2d)
    depth = entering.shape[1] // op.groups
    filters = op.weight.shape[1] if transposed else op.weight.shape[0] // op.groups
    height, width = entering.shape[2:] if transposed else node.type.shape[2:]
    return ConvWork(
        height=height,
        width=width,
        kernel_area=op.weight.shape[2] * op.weight.shape[3],
        depth=depth,
        filters=filters,
        groups=op.groups,
        element_bytes=2 if entering.dtype == "int16" else 1,
        feature_bytes=input_bytes + byte_count(node.type),
    )


def _is_free(node: Node, inputs: list[TensorType]) -> bool:
    if isinstance(node.op, ops.Reshape):
        return reshape_moves_nothing(inputs[0].shape, node.type.shape)
    return isinstance(node.op, ops.Transpose) and transpose_moves_nothing(inputs[0].shape, node.op.permutation)
