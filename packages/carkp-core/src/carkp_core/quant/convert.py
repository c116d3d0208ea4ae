"""Convert: from the calibrated (or trained) network to the integer IR, with the very integers it computes with.

Before: layers with float weights and scales. After: nodes with int8 weights, int32 bias, multipliers and shifts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from carkp_core.errors import QuantizationError
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.ir.verify import verify
from carkp_core.quant.network import QuantizedNetwork

#: Metadata key under which the nesting of the outputs is kept, as JSON.
STRUCTURE_KEY = "output_structure"


def convert(
    network: QuantizedNetwork,
    name: str,
    example_inputs: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    allow_unknown: bool = False,
) -> Graph:
    """The integer model of a quantized network.

    Parameters
    ----------
    network:
        Calibrated.
    name:
        The model's name.
    example_inputs:
        Inputs (N, ...) by name, for their shapes; None for those it was traced with.
    metadata:
        Where it came from.
    allow_unknown:
        Turn layers without integer form into ``Opaque`` nodes, for a check; nothing executes those.

    Raises
    ------
    QuantizationError
        A layer without integer form or scale, an accumulator that may leave int32: names the layer.
    """
    unknown = network.opaque_layers()
    if unknown and not allow_unknown:
        raise QuantizationError(
            f"{len(unknown)} operator(s) have no integer form",
            seen="; ".join(f"{layer.target} at {layer.source or name}" for name, layer in unknown.items()),
            remedy="replace them by supported operators (docs/operators.md), move them behind the network's outputs, "
            "or offer them from a plugin (docs/write-a-plugin.md)",
        )
    shapes = {name: tuple(value.shape) for name, value in (example_inputs or {}).items()} or network.input_shapes
    network.require_sizes(shapes)
    inputs, types = [], {}
    for input_name in network.inputs:
        layer = network.layer(input_name)
        types[input_name] = TensorType((1, *shapes[input_name][1:]), layer.dtype, layer.wanted_scale())
        inputs.append(GraphInput(input_name, types[input_name], _preprocessing(types[input_name])))
    nodes = []
    with torch.no_grad():
        for step in network.steps:
            node = _node(network, step, types)
            types[step.name] = node.type
            nodes.append(node)
    structure = json.dumps(network.nesting.to_json(), separators=(",", ":"))
    graph = Graph(
        name,
        tuple(inputs),
        tuple(nodes),
        network.output_names,
        {**(metadata or {}), STRUCTURE_KEY: structure},
    )
    verify(graph)
    return graph


def _node(network: QuantizedNetwork, step: Any, types: Mapping[str, TensorType]) -> Node:
    layer: Any = network.layers[step.key]
    inputs = tuple(types[name] for name in step.inputs)
    made = layer.to_ir(*inputs)
    try:
        shape = made.op.infer_shape(tuple(t.shape for t in inputs))
    except ValueError as error:
        raise QuantizationError(
            "the layer does not fit the input's size", where=str(layer.source) or step.name, seen=str(error)
        ) from error
    return Node(step.name, made.op, step.inputs, TensorType(tuple(shape), made.dtype, made.scale), layer.source)


def _preprocessing(kind: TensorType) -> str:
    """How an image becomes this input."""
    if kind.dtype == "int8" and kind.scale == 1.0 / 128.0:
        return "pixel - 128"
    return f"round half even of value / {kind.scale!r}, clamped to {kind.dtype}"
