"""Plans: no two tensors alive at one time share room, parts stay in their stage, mistakes are named."""

from __future__ import annotations

import numpy as np
import pytest

from carkp_bpu.simulator import plan as planning
from carkp_bpu.simulator.plan import make_plan
from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType


def chain(*sizes: int) -> Graph:
    """Pads that grow a map to each size in turn, every second one read again at the end."""
    nodes, name, size = [], "img", sizes[0]
    for index, target in enumerate(sizes[1:]):
        grown = target - size
        op = ops.Pad((0, 0, grown, grown)) if grown >= 0 else ops.Slice(2, 0, target)
        shape = op.infer_shape(((1, 4, size, size),)) if grown >= 0 else (1, 4, target, size)
        nodes.append(Node(f"n{index}", op, (name,), TensorType(shape, "int8", 1.0)))
        if grown < 0:
            square = ops.Slice(3, 0, target)
            nodes.append(Node(f"s{index}", square, (f"n{index}",), TensorType((1, 4, target, target), "int8", 1.0)))
            name = f"s{index}"
        else:
            name = f"n{index}"
        size = target
    image = GraphInput("img", TensorType((1, 4, sizes[0], sizes[0]), "int8", 1.0))
    return Graph("chain", (image,), tuple(nodes), (name,))


@pytest.mark.parametrize("part_bytes", [1, 2000, 50_000, 1 << 30])
def test_rooms_of_living_tensors_do_not_overlap(part_bytes, monkeypatch):
    monkeypatch.setattr(planning, "PART_BYTES", part_bytes)
    plan = make_plan(chain(8, 30, 8, 20, 40, 6, 6, 12))
    spans = {span.name: span for span in planning._spans(plan)}
    types = plan.graph.types()

    def bounds(name: str) -> tuple[int, int]:
        room = plan.rooms[name]
        return room.offset, room.offset + room.images * planning._image_bytes(types[name])

    names = list(plan.rooms)
    for i, first in enumerate(names):
        assert bounds(first)[1] <= plan.arena_bytes
        for second in names[i + 1 :]:
            together = spans[first].begin <= spans[second].end and spans[second].begin <= spans[first].end
            if together:
                (a, b), (c, d) = bounds(first), bounds(second)
                assert b <= c or d <= a, (first, second)


def test_stages_cover_every_step_once():
    plan = make_plan(chain(8, 200, 8, 20, 300, 6))
    ends = [(stage.first, stage.last) for stage in plan.stages]
    assert [a for a, _ in ends] == [0, *[b for _, b in ends[:-1]]]
    assert ends[-1][1] == len(plan.steps)
    assert all(1 <= stage.images <= plan.images for stage in plan.stages)


def test_reshapes_that_move_nothing_share_memory():
    image = GraphInput("img", TensorType((1, 6, 1, 1), "int8", 1.0))
    flat = Node("flat", ops.Reshape((1, 6)), ("img",), TensorType((1, 6), "int8", 1.0))
    split = Node("split", ops.Reshape((1, 2, 3)), ("flat",), TensorType((1, 2, 3), "int8", 1.0))
    map_ = Node("map", ops.Reshape((1, 1, 2, 3)), ("split",), TensorType((1, 1, 2, 3), "int8", 1.0))
    moved = Node("moved", ops.Reshape((1, 3, 2, 1)), ("map",), TensorType((1, 3, 2, 1), "int8", 1.0))
    plan = make_plan(Graph("reshapes", (image,), (flat, split, map_, moved), ("moved",)))
    assert [node.name for node in plan.steps] == ["moved"]
    assert {plan.owners[name] for name in ("flat", "split", "map")} == {"img"}


def test_constants_are_worked_out_once():
    value = np.arange(4, dtype=np.int8).reshape(1, 4, 1, 1)
    image = GraphInput("img", TensorType((1, 4, 2, 2), "int8", 1.0))
    constant = Node("c", ops.Constant(value), (), TensorType((1, 4, 1, 1), "int8", 1.0))
    clamped = Node("d", ops.Clamp(1, 2), ("c",), TensorType((1, 4, 1, 1), "int8", 1.0))
    term = ops.Term(1 << 30, 30)
    add = Node("a", ops.Add((term, term), -128, 127), ("img", "d"), TensorType((1, 4, 2, 2), "int8", 1.0))
    plan = make_plan(Graph("constants", (image,), (constant, clamped, add), ("a",)))
    assert [node.name for node in plan.steps] == ["a"]
    np.testing.assert_array_equal(plan.constants["d"].reshape(-1), [1, 1, 2, 2])


def test_mistakes_in_a_graph_are_named():
    image = GraphInput("img", TensorType((1, 4, 2, 2), "int8", 1.0))
    wrong = Node("wrong", ops.Clamp(0, 1), ("img",), TensorType((1, 4, 3, 3), "int8", 1.0))
    with pytest.raises(GraphError, match=r"wrong .*declares another shape"):
        make_plan(Graph("g", (image,), (wrong,), ("wrong",)))
    lost = Node("lost", ops.Clamp(0, 1), ("nobody",), TensorType((1, 4, 2, 2), "int8", 1.0))
    with pytest.raises(GraphError, match="no earlier node makes"):
        make_plan(Graph("g", (image,), (lost,), ("lost",)))
    with pytest.raises(GraphError, match="no tensor for its output"):
        make_plan(Graph("g", (image,), (), ("out",)))
    long = Node("long", ops.Slice(2, 0, 9), ("img",), TensorType((1, 4, 9, 2), "int8", 1.0))
    with pytest.raises(GraphError, match="leaves"):
        make_plan(Graph("g", (image,), (long,), ("long",)))
