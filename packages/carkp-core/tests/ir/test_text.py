"""The text form: a golden, and what digests depend on."""

from __future__ import annotations

import attrs
import numpy as np

from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, Source, TensorType
from carkp_core.ir.text import format_graph

GOLDEN = """\
graph "golden"
meta march: "bayes"
input x: int8[1, 2, 4, 4] * 0.5  "pixel - 128"
pool: int8[1, 2, 2, 2] * 0.5 = max_pool(x) dilation_hw=[1, 1] kernel_hw=[2, 2] padding_tlbr=[0, 0, 0, 0] \
stride_hw=[2, 2]  # trunk.pool (net.py:7)
act: int8[1, 2, 2, 2] * 0.25 = table(pool) dropped_bits=7 function="tanh" \
table=int8[256]:2bae3a9530e35152c19d73f13f6c0e22
sum: int8[1, 2, 2, 2] * 0.25 = add(act, pool) hi=127 lo=-128 \
terms=[{"term": [1073741824, 45, false]}, {"term": [1073741824, 44, true]}]
output sum
"""


def golden_graph() -> Graph:
    half = TensorType((1, 2, 2, 2), "int8", 0.5)
    pool = ops.MaxPool((2, 2), (2, 2))
    table = ops.Table(np.arange(-128, 128).astype(np.int8), "tanh")
    add = ops.Add((ops.Term(1 << 30, 45), ops.Term(1 << 30, 44, negative=True)), -128, 127)
    quarter = attrs.evolve(half, scale=0.25)
    return Graph(
        "golden",
        (GraphInput("x", TensorType((1, 2, 4, 4), "int8", 0.5), "pixel - 128"),),
        (
            Node("pool", pool, ("x",), half, Source("trunk.pool", "net.py", 7)),
            Node("act", table, ("pool",), quarter),
            Node("sum", add, ("act", "pool"), quarter),
        ),
        ("sum",),
        {"march": "bayes"},
    )


def test_golden_text() -> None:
    assert format_graph(golden_graph()) == GOLDEN


def test_digest_ignores_origin_and_sees_every_number() -> None:
    graph = golden_graph()
    digest = graph.digest()
    assert attrs.evolve(graph, metadata={}, name="other").digest() == digest
    moved = attrs.evolve(graph.nodes[0], source=Source())
    assert attrs.evolve(graph, nodes=(moved, *graph.nodes[1:])).digest() == digest
    table = np.arange(-128, 128).astype(np.int8)
    table[9] += 1
    changed = attrs.evolve(graph.nodes[1], op=ops.Table(table, "tanh"))
    assert attrs.evolve(graph, nodes=(graph.nodes[0], changed, graph.nodes[2])).digest() != digest
