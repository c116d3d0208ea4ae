"""The binary form: it round-trips, and damaged files are refused by name."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.binary import from_bytes, read, to_bytes, write
from carkp_core.ir.graph import Graph, GraphInput, Node, Source, TensorType
from carkp_core.ir.reference import execute


def small_graph(seed: int = 0, channels: int = 4) -> Graph:
    rng = np.random.default_rng(seed)
    conv = ops.Conv2d(
        weight=rng.integers(-127, 128, (channels, 3, 3, 3)),
        bias=rng.integers(-1000, 1000, channels),
        multiplier=rng.integers(1 << 30, 1 << 31, channels),
        shift=np.full(channels, 40),
        lo=0,
        hi=127,
        padding_tlbr=(1, 1, 1, 1),
    )
    add = ops.Add((ops.Term(1 << 30, 46), ops.Term(1 << 30, 45, negative=True)), -128, 127)
    table = ops.Table(rng.integers(-128, 128, 256).astype(np.int8), "noise")
    kind = TensorType((1, channels, 6, 6), "int8", 0.05)
    return Graph(
        name="small",
        inputs=(GraphInput("img", TensorType((1, 3, 6, 6), "int8", 1 / 128), "pixel - 128"),),
        nodes=(
            Node("stem", conv, ("img",), kind, Source("net.stem", "net.py", 12)),
            Node("sum", add, ("stem", "stem"), kind),
            Node("act", table, ("sum",), kind),
        ),
        outputs=("act", "stem"),
        metadata={"march": "bayes"},
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_round_trip_gives_equal_bytes_and_results(seed: int, channels: int) -> None:
    graph = small_graph(seed, channels)
    data = to_bytes(graph)
    again = from_bytes(data)
    assert to_bytes(again) == data
    assert again.digest() == graph.digest()
    assert again.metadata == graph.metadata
    assert again.nodes[0].source == graph.nodes[0].source
    img = np.random.default_rng(seed).integers(-128, 128, (2, 3, 6, 6)).astype(np.int8)
    before, after = execute(graph, {"img": img}), execute(again, {"img": img})
    assert all(np.array_equal(before[name], after[name]) for name in before)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_is_refused(data: st.DataObject) -> None:
    stored = bytearray(to_bytes(small_graph()))
    position = data.draw(st.integers(0, len(stored) - 1))
    stored[position] ^= data.draw(st.integers(1, 255))
    if position in range(28, 32):  # reserved bytes
        return
    with pytest.raises(GraphError):
        from_bytes(bytes(stored))


@pytest.mark.parametrize("length", [0, 3, 31, 32, 500])
def test_a_cut_off_file_is_refused(length: int) -> None:
    with pytest.raises(GraphError):
        from_bytes(to_bytes(small_graph())[:length])


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.ir"
    write(small_graph(), path)
    with pytest.raises(GraphError, match="'act' has an unknown operator"):
        read(path, [kind for kind in ops.OPERATIONS if kind is not ops.Table])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="absent"):
        read(tmp_path / "absent.ir")


def test_reading_verifies() -> None:
    graph = small_graph()
    broken = attrs.evolve(graph.nodes[1], op=ops.Add((ops.Term(1 << 30, 16), ops.Term(1 << 30, 46)), -128, 127))
    data = to_bytes(attrs.evolve(graph, nodes=(graph.nodes[0], broken, graph.nodes[2])))
    with pytest.raises(GraphError, match="rescale: shift 16"):
        from_bytes(data)


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    write(small_graph(), tmp_path / "deep" / "model.ir")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["model.ir"]
