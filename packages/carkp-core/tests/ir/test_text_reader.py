"""The full text form: it reads back to the same bytes, and says which line it cannot read."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.binary import to_bytes
from carkp_core.ir.graph import Graph, GraphInput, Node, Source, TensorType
from carkp_core.ir.text import format_graph, to_text
from carkp_core.ir.text_reader import from_text

FULL = """\
graph "full"
meta march: "bayes"
input x: int8[1, 1, 2, 2] * 0.1  "pixel - 128"
"an: odd name": int8[1, 1, 2, 2] * 0.25 = table(x) dropped_bits=7 function="tanh" table={"array": 0}  \
# ["trunk.act", "net.py", 7]
sum: int8[1, 1, 2, 2] * 0.25 = add("an: odd name", x) hi=127 lo=-128 \
terms=[{"term": [1073741824, 45, false]}, {"term": [1073741824, 44, true]}]
output sum "an: odd name"
array 0: int8[256]
"""


def full_graph() -> Graph:
    kind = TensorType((1, 1, 2, 2), "int8", 0.25)
    table = ops.Table(np.arange(-128, 128).astype(np.int8), "tanh")
    add = ops.Add((ops.Term(1 << 30, 45), ops.Term(1 << 30, 44, negative=True)), -128, 127)
    return Graph(
        "full",
        # 0.1 is no float32: the full form keeps it as the binary form does.
        (GraphInput("x", attrs.evolve(kind, scale=0.1), "pixel - 128"),),
        (
            Node("an: odd name", table, ("x",), kind, Source("trunk.act", "net.py", 7)),
            Node("sum", add, ("an: odd name", "x"), kind),
        ),
        ("sum", "an: odd name"),
        {"march": "bayes"},
    )


def test_golden() -> None:
    text = to_text(full_graph())
    assert text.startswith(FULL)
    assert [len(line) for line in text.removeprefix(FULL).splitlines()] == [114, 114, 114, 10]


def test_it_reads_back_to_the_same_bytes() -> None:
    graph = full_graph()
    read = from_text(to_text(graph))
    assert to_bytes(read) == to_bytes(graph)
    assert read.digest() == graph.digest()
    assert to_text(read) == to_text(graph)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("sum: int8", "sum int8", "no graph, meta, input, output, array or node"),
        ("add(", "subtract(", "unknown operator 'subtract'"),
        ("hi=127", "hi=?", "Expecting value"),
        ("array 0", "array 1", "array 0 is missing"),
        ("int8[256]", "int16[256]", "256 bytes for int16"),
        ("int8[256]", "float64[256]", "an array of float64"),
        ('table={"array": 0}', 'table={"array": 3}', "cannot be made from its stored fields"),
        ("output sum", "outputs sum", "no graph, meta"),
        ("  gIGC", "  g?GC", "base64"),
        ('graph "full"', "  gIGC", "outside an array"),
        ("  # [", "  ! [", "unexpected"),
    ],
)
def test_what_cannot_be_read_is_named(before: str, after: str, message: str) -> None:
    text = to_text(full_graph())
    assert before in text
    with pytest.raises(GraphError, match=r".") as caught:
        from_text(text.replace(before, after, 1), where="net.ckir.txt")
    assert message in str(caught.value)


def test_the_line_is_named() -> None:
    with pytest.raises(GraphError, match=r"net\.txt:5") as caught:
        from_text(to_text(full_graph()).replace("hi=127", "hi=?"), where="net.txt")
    assert "sum: int8" in str(caught.value)


def test_the_rules_of_the_ir_hold_for_text_too() -> None:
    with pytest.raises(GraphError, match="clamp"):
        from_text(to_text(full_graph()).replace("hi=127", "hi=300"))


def test_the_short_form_is_for_people_only() -> None:
    with pytest.raises(GraphError, match="cannot be read"):
        from_text(format_graph(full_graph()))


def test_a_text_without_outputs_is_refused() -> None:
    with pytest.raises(GraphError, match="no output line"):
        from_text('graph "empty"\n')
