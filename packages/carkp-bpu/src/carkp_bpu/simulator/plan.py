"""Where every tensor of a graph stands while it runs, decided once.

A batch is run in slices of at most ``images`` images. Where a layer's tensors are large, the slice itself is run in
smaller parts, so that what one layer writes is still in the cache when the next reads it; where they are small, the
whole slice goes at once, so that a layer's weights are read once for many images. Neighbouring layers with a like
part size form a stage::

    stage 0, parts of 1      stage 1, parts of 4             stage 2, parts of 16
    stem .. block 2          block 3 .. block 5              block 6 .. head

Tensors used within one stage only need room for one part; the others have room for the slice. Room is given by
offsets in one arena, shared by tensors that are not alive at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen

from carkp_bpu.simulator.lowering.base import stored, stored_shape
from carkp_core.errors import GraphError
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, Node, TensorType
from carkp_core.ir.reference import execute_node

Array = npt.NDArray[Any]

#: Images in a slice at most, and bytes of arena that a slice should not exceed.
SLICE_IMAGES = 16
SLICE_BYTES = 16 << 20
#: Bytes that one layer's input and output of a part should fit in.
PART_BYTES = 384 << 10
ALIGNMENT = 64


@frozen
class Stage:
    """Nodes ``first`` to ``last`` (exclusive) of the steps, run in parts of ``images``."""

    first: int
    last: int
    images: int


@frozen
class Room:
    """A tensor's place in the arena, with room for ``images`` of its stored ``shape`` (without N)."""

    shape: tuple[int, ...]
    dtype: str
    images: int
    offset: int

    def view(self, arena: Array, first: int, last: int) -> Array:
        """The stored tensor of images ``first`` to ``last`` of the slice."""
        size = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        # Parts start at multiples of the room of a part, so this is 0 for them, and `first` for a whole slice.
        start = self.offset + first % self.images * size
        return arena[start : start + (last - first) * size].view(self.dtype).reshape(last - first, *self.shape)


@frozen(eq=False)
class Plan:
    """A graph made ready to run: steps in order, stages, rooms and constants."""

    graph: Graph
    steps: tuple[Node, ...]
    stages: tuple[Stage, ...]
    #: Tensor name -> the tensor whose room it shares (itself, mostly).
    owners: Mapping[str, str]
    #: Tensors that do not depend on the input, stored, with N = 1.
    constants: Mapping[str, Array]
    images: int
    rooms: Mapping[str, Room] = field(factory=dict)
    arena_bytes: int = 0


def make_plan(graph: Graph) -> Plan:
    """Plan a graph.

    Raises
    ------
    GraphError
        When a node's inputs do not exist, its type contradicts its operator, or it has no integer form.
    """
    types = _checked_types(graph)
    constants = _fold_constants(graph)
    owners = {name: name for name in types}
    steps = []
    for node in graph.nodes:
        if node.name in constants:
            continue
        if _shares_memory(node, types):
            owners[node.name] = owners[node.inputs[0]]
        else:
            steps.append(node)
    images = _slice_images(types, constants)
    stored_constants = {name: np.ascontiguousarray(stored(value)) for name, value in constants.items()}
    plan = Plan(graph, tuple(steps), _stages(steps, types, images), owners, stored_constants, images)
    rooms, arena_bytes = _place(_spans(plan), types)
    return evolve(plan, rooms=rooms, arena_bytes=arena_bytes)


def _checked_types(graph: Graph) -> dict[str, TensorType]:
    types = {i.name: i.type for i in graph.inputs}
    for node in graph.nodes:
        where = f"{node.name} ({node.op.kind})"
        if isinstance(node.op, ops.Opaque):
            what = f"{node.op.target} has no integer form and cannot be simulated"
            raise GraphError(what, where=where, remedy="see `carkp model-checker`")
        missing = [name for name in node.inputs if name not in types]
        if missing:
            raise GraphError("reads a tensor that no earlier node makes", where=where, seen=missing[0])
        try:
            shape = node.op.infer_shape(tuple(types[name].shape for name in node.inputs))
        except ValueError as error:
            raise GraphError(str(error), where=where) from error
        if tuple(shape) != tuple(node.type.shape):
            raise GraphError("declares another shape", where=where, seen=str(node.type.shape), allowed=str(shape))
        types[node.name] = node.type
    unknown = [name for name in graph.outputs if name not in types]
    if unknown:
        raise GraphError(f"graph {graph.name!r} has no tensor for its output", seen=unknown[0])
    return types


def _fold_constants(graph: Graph) -> dict[str, Array]:
    """The values that no input reaches, in the IR's order of dimensions."""
    known: dict[str, Array] = {}
    for node in graph.nodes:
        if all(name in known for name in node.inputs):
            known[node.name] = execute_node(node, tuple(known[name] for name in node.inputs))
    return known


def _shares_memory(node: Node, types: Mapping[str, TensorType]) -> bool:
    """A reshape that leaves the stored order of elements as it is."""
    if not isinstance(node.op, ops.Reshape):
        return False
    shapes = types[node.inputs[0]].shape, node.type.shape
    plain = all(len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1 for shape in shapes)
    return plain or shapes[0] == shapes[1]


def _image_bytes(type_: TensorType) -> int:
    return math.prod(type_.shape[1:]) * np.dtype(type_.dtype).itemsize


def _slice_images(types: Mapping[str, TensorType], constants: Mapping[str, Array]) -> int:
    largest = max((_image_bytes(t) for name, t in types.items() if name not in constants), default=1)
    images = SLICE_IMAGES
    while images > 1 and 3 * images * largest > SLICE_BYTES:
        images //= 2
    return images


def _stages(steps: Sequence[Node], types: Mapping[str, TensorType], images: int) -> tuple[Stage, ...]:
    """Runs of steps whose own part sizes differ from the run's by a factor of two at most."""
    stages: list[Stage] = []
    for index, node in enumerate(steps):
        touched = _image_bytes(node.type) + sum(_image_bytes(types[name]) for name in node.inputs)
        part = images
        while part > 1 and part * touched > PART_BYTES:
            part //= 2
        current = stages[-1] if stages else None
        if current and current.images <= 2 * part and part <= 2 * current.images:
            stages[-1] = Stage(current.first, index + 1, current.images)
        else:
            stages.append(Stage(index, index + 1, part))
    return tuple(stages)


@frozen
class _Span:
    """A tensor alive from step ``begin`` to step ``end`` (inclusive), with room for ``images``."""

    name: str
    begin: int
    end: int
    images: int


def _spans(plan: Plan) -> list[_Span]:
    """How long each tensor lives: one that leaves its stage, for the whole of the stages it touches."""
    stage_of = [stage for stage in plan.stages for _ in range(stage.first, stage.last)]
    uses: dict[str, list[int]] = {i.name: [] for i in plan.graph.inputs}
    for index, node in enumerate(plan.steps):
        uses[node.name] = [index]
        for name in node.inputs:
            if name not in plan.constants:
                uses[plan.owners[name]].append(index)
    inputs = {i.name for i in plan.graph.inputs}
    outputs = {plan.owners[name] for name in plan.graph.outputs if name not in plan.constants}
    spans = []
    for name, steps in uses.items():
        stages = {stage_of[step] for step in steps}
        if len(stages) == 1 and name not in inputs | outputs:
            spans.append(_Span(name, min(steps), max(steps), stages.pop().images))
            continue
        begin = -1 if name in inputs else min(stage.first for stage in stages)
        end = len(plan.steps) if name in outputs else max((stage.last - 1 for stage in stages), default=-1)
        spans.append(_Span(name, begin, end, plan.images))
    return spans


def _place(spans: Iterable[_Span], types: Mapping[str, TensorType]) -> tuple[dict[str, Room], int]:
    """Give each tensor the lowest offset that is free while it lives, the largest tensors first."""

    def size(span: _Span) -> int:
        return -(-_image_bytes(types[span.name]) * span.images // ALIGNMENT) * ALIGNMENT

    placed: list[tuple[int, int, _Span]] = []
    rooms: dict[str, Room] = {}
    for span in sorted(spans, key=lambda s: (-size(s), s.begin, s.name)):
        offset = 0
        for start, stop, other in sorted(placed, key=lambda p: p[0]):
            if other.begin <= span.end and span.begin <= other.end and start < offset + size(span) and offset < stop:
                offset = stop
        placed.append((offset, offset + size(span), span))
        type_ = types[span.name]
        rooms[span.name] = Room(stored_shape(type_.shape)[1:], type_.dtype, span.images, offset)
    return rooms, max((stop for _, stop, _ in placed), default=0)
