"""Operators of plugins become operators of the machine, before anything is compiled.

Before (a plugin's ``maximum``)::        After (its ``expand``)::

    maximum = maximum(a, b)                  maximum:0 = reshape(a)
                                             maximum:1 = reshape(b)
                                             maximum:2 = concat(maximum:0, maximum:1)
                                             maximum:3 = max_pool(maximum:2)
                                             maximum   = reshape(maximum:3)

So a program needs nothing of the plugin when it runs, and the operator costs what its instructions cost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from carkp_bpu.operator import BpuOperator
from carkp_core.errors import PluginError
from carkp_core.ir.graph import Graph, Node, TensorType
from carkp_core.ir.operators import OPERATIONS

CORE_KINDS = frozenset(operation.kind for operation in OPERATIONS)


def expand(graph: Graph, operators: Sequence[BpuOperator], only: Collection[str] | None = None) -> Graph:
    """The graph in the machine's own operators; ``only`` names the nodes to expand (by default all).

    Raises
    ------
    PluginError
        When an operator's ``expand`` breaks its contract.
    """
    known = {operator.kind: operator for operator in operators if operator.expand}
    if not any(node.op.kind in known for node in graph.nodes):
        return graph
    types = graph.types()
    nodes: list[Node] = []
    for node in graph.nodes:
        wanted = node.op.kind in known and (only is None or node.name in only)
        nodes.extend(expanded(node, types, known[node.op.kind]) if wanted else (node,))
    return attrs.evolve(graph, nodes=tuple(nodes))


def expanded(node: Node, types: Mapping[str, TensorType], operator: BpuOperator) -> tuple[Node, ...]:
    """The nodes that stand for one node of a plugin's kind; the last has its name and type.

    Raises
    ------
    PluginError
        When the plugin's function breaks its contract.
    """
    parts = tuple(operator.load_expand()(node, {name: types[name] for name in node.inputs}))
    broken = _broken_contract(node, parts)
    if broken:
        raise PluginError(
            f"the expansion of operator {operator.kind!r} breaks its contract",
            where=str(node.source) or node.name,
            seen=broken,
            allowed=f"nodes of core's operators named {node.name}:<something>, the last named {node.name} itself",
            remedy=f"correct {operator.expand}, of {operator.provider or 'an unknown plugin'}",
        )
    return tuple(attrs.evolve(part, source=node.source) for part in parts)


def _broken_contract(node: Node, parts: tuple[Node, ...]) -> str:
    if not parts or parts[-1].name != node.name or parts[-1].type != node.type:
        return "the last node has another name or type"
    known = set(node.inputs)
    for part in parts:
        if part.op.kind not in CORE_KINDS:
            return f"operator {part.op.kind!r}"
        if part is not parts[-1] and not part.name.startswith(f"{node.name}:"):
            return f"a node named {part.name!r}"
        unknown = [name for name in part.inputs if name not in known]
        if unknown:
            return f"{part.name} reads {unknown[0]!r}"
        known.add(part.name)
    return ""
