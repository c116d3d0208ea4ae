"""What the planner decides: segments in order, which tensors stay on chip, and where every buffer lies.

A segment is one layer cut into tiles, or a cascade. All its buffers live from its first layer to its last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from attrs import field, frozen

from carkp_bpu.compiler.allocate import Allocation, Buffer
from carkp_bpu.compiler.cascade import Shape
from carkp_bpu.compiler.group import Model
from carkp_bpu.compiler.maps import MapBuffer, TensorMap, pixel_pitch
from carkp_bpu.compiler.tile import Level, TilePlan
from carkp_bpu.hbm.geometry import Span
from carkp_bpu.march import March


@frozen
class Target:
    """The machine and the effort."""

    march: March
    sram_bytes: int
    level: Level


@frozen(eq=False)
class Tiled:
    """One layer by itself."""

    layer: int
    plan: TilePlan

    @property
    def span(self) -> Span:
        """First and last layer."""
        return self.layer, self.layer

    @property
    def cut(self) -> tuple[object, ...]:
        """What tells it from other segments of a model."""
        return self.layer, self.plan.shape


@frozen(eq=False)
class Cascade:
    """Layers stripe by stripe.

    ``rings`` are buffers of tensors made inside that do not stay on chip as a whole, ``inputs`` those of tensors
    loaded from DDR, ``parameter_bytes`` the block of each layer.
    """

    shape: Shape
    rings: dict[str, MapBuffer] = field(repr=False)
    inputs: dict[str, MapBuffer] = field(repr=False)
    parameter_bytes: dict[int, int] = field(repr=False)

    @property
    def span(self) -> Span:
        """First and last layer."""
        return self.shape.first, self.shape.last

    @property
    def cut(self) -> tuple[object, ...]:
        """What tells it from other segments of a model."""
        return *self.span, self.shape.stripe


Segment: TypeAlias = Tiled | Cascade


@frozen(eq=False)
class Placement:
    """Segments, resident tensors, and offsets in SRAM by buffer name."""

    segments: tuple[Segment, ...]
    resident: frozenset[str]
    buffers: tuple[Buffer, ...] = field(repr=False)
    sram: Allocation


class Lives:
    """When storages are made and last read, in layers; and which of them may stay on chip."""

    def __init__(self, model: Model, march: March) -> None:
        self._model, self._march = model, march
        self.made = {layer.output: index for index, layer in enumerate(model.layers)}
        self.last: dict[str, int] = {}
        for index, layer in enumerate(model.layers):
            for name in layer.inputs:
                self.last[model.root(name)] = index
        self.outputs = frozenset(model.root(name) for name in model.graph.outputs)
        self.candidates = frozenset(name for name in self.made if name in self.last and name not in model.ddr_only)

    def size(self, name: str) -> int:
        """Bytes of a whole tensor on chip."""
        return full_buffer(self._model.maps[name], self._march).size


def full_buffer(tensor: TensorMap, march: March) -> MapBuffer:
    """The buffer that holds a whole tensor."""
    return row_buffer(tensor, tensor.height, march)


def row_buffer(tensor: TensorMap, rows: int, march: March) -> MapBuffer:
    """A buffer for so many whole rows of a tensor."""
    pitch = pixel_pitch(tensor.channels, tensor.itemsize, march.channel_align)
    return MapBuffer(rows, tensor.width, tensor.channels, pitch)


def resident_name(tensor: str) -> str:
    """The buffer of a tensor that stays on chip."""
    return f"tensor {tensor}"


def ring_name(tensor: str) -> str:
    """The rolling buffer of a tensor made inside a cascade."""
    return f"ring {tensor}"


def stream_name(first: int, tensor: str) -> str:
    """The rolling buffer of a tensor that a cascade, named by its first layer, loads."""
    return f"layer {first} input {tensor}"


def buffer_name(layer: int, role: str, slot: int = 0) -> str:
    """The buffer of a layer: role ``input`` (slot = operand), ``parameters``, ``output``, ``partial``."""
    return f"layer {layer} {role} {slot}"


def spans(segments: Sequence[Segment]) -> dict[int, Span]:
    """First and last layer of the segment that each layer is in."""
    return {layer: s.span for s in segments for layer in range(s.span[0], s.span[1] + 1)}


def passing(model: Model, segments: Sequence[Segment]) -> frozenset[str]:
    """The tensors that only pass through a rolling buffer: neither on chip as a whole nor in DDR."""
    outputs = {model.root(name) for name in model.graph.outputs}
    within = spans(segments)
    last: dict[str, int] = {}
    for index, layer in enumerate(model.layers):
        for name in layer.inputs:
            last[model.root(name)] = index
    rings = [(name, s) for s in segments if isinstance(s, Cascade) for name in s.rings]
    return frozenset(name for name, s in rings if name in last and within[last[name]] == s.span and name not in outputs)


def wanted_buffers(model: Model, lives: Lives, segments: Sequence[Segment], resident: frozenset[str]) -> list[Buffer]:
    """Every buffer with its live range."""
    within = spans(segments)
    found = [
        Buffer(resident_name(name), lives.size(name), within[lives.made[name]][0], within[lives.last[name]][1])
        for name in sorted(resident)
    ]
    for segment in segments:
        first, last = segment.span
        own = _tiled_buffers(segment) if isinstance(segment, Tiled) else _cascade_buffers(segment)
        found += [Buffer(name, size, first, last) for name, size in own]
    return found


def _tiled_buffers(segment: Tiled) -> Iterator[tuple[str, int]]:
    index, plan = segment.layer, segment.plan
    for slot, buffer in enumerate(plan.inputs):
        if buffer is not None:
            yield buffer_name(index, "input", slot), buffer.size
    for slot in range(plan.parameter_slots):
        yield buffer_name(index, "parameters", slot), plan.parameter_bytes
    if plan.output is not None:
        for slot in range(plan.output_buffers):
            yield buffer_name(index, "output", slot), plan.output.size
    if plan.partial_bytes:
        yield buffer_name(index, "partial"), plan.partial_bytes


def _cascade_buffers(segment: Cascade) -> Iterator[tuple[str, int]]:
    for name, buffer in segment.rings.items():
        yield ring_name(name), buffer.size
    for name, buffer in segment.inputs.items():
        yield stream_name(segment.shape.first, name), buffer.size
    for index, size in segment.parameter_bytes.items():
        if size:
            yield buffer_name(index, "parameters"), size
