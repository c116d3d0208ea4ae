"""The least bytes that any program of a network moves between DDR and the chip for one frame."""

from __future__ import annotations

import math

from attrs import frozen

from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph

_ITEMSIZE = {"int8": 1, "int16": 2, "int32": 4}


@frozen
class TrafficBound:
    """Each component counted once, without alignment padding; instruction fetch is not in it."""

    input_bytes: int
    output_bytes: int
    weight_bytes: int
    #: For each output channel of a convolution: 4 bytes bias, 4 multiplier, 1 shift.
    channel_bytes: int
    table_bytes: int
    constant_bytes: int

    @property
    def components(self) -> dict[str, int]:
        """What the sum is made of, by name; what a network has none of is left out."""
        channels = self.channel_bytes // 9
        parts = {
            "input": self.input_bytes,
            "output": self.output_bytes,
            "weights": self.weight_bytes,
            "biases": 4 * channels,
            "multipliers": 4 * channels,
            "shifts": channels,
            "tables": self.table_bytes,
            "constants": self.constant_bytes,
        }
        return {name: size for name, size in parts.items() if size}

    @property
    def total(self) -> int:
        """The sum."""
        tensors = self.input_bytes + self.output_bytes + self.constant_bytes
        return tensors + self.weight_bytes + self.channel_bytes + self.table_bytes


def lower_bound(graph: Graph) -> TrafficBound:
    """Count a network."""
    weights = channels = tables = constants = 0
    for node in graph.nodes:
        match node.op:
            case ops.Conv2d() | ops.ConvTranspose2d():
                weights += node.op.weight.size
                channels += 9 * node.op.bias.size
            case ops.Table():
                tables += node.op.table.size * (2 if node.op.table.dtype.itemsize > 1 else 1)
            case ops.Constant():
                constants += node.op.value.size * _ITEMSIZE[node.type.dtype]
    types = graph.types()
    outputs = {name: types[name] for name in graph.outputs}
    return TrafficBound(
        input_bytes=sum(math.prod(i.type.shape) * _ITEMSIZE[i.type.dtype] for i in graph.inputs),
        output_bytes=sum(math.prod(t.shape) * _ITEMSIZE[t.dtype] for t in outputs.values()),
        weight_bytes=weights,
        channel_bytes=channels,
        table_bytes=tables,
        constant_bytes=constants,
    )
