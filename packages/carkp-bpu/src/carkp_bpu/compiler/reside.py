"""Which tensors stay on chip, and where every buffer lies.

Before: layers. After: for each layer a tile plan within what the resident tensors leave, and offsets for all of it.

O0 keeps nothing: every layer loads its inputs and stores its output. From O1 on a tensor stays on chip from the
layer that makes it to the last one that reads it; where live tensors and the least buffers of a layer do not fit,
the tensor whose absence costs the fewest bytes goes through DDR instead. Parameters and the first rows of a streamed
input get their buffers some layers early where there is room, so that their loads run under earlier layers.
"""

from __future__ import annotations

import attrs
from attrs import field, frozen

from carkp_bpu.compiler.allocate import Allocation, Buffer, allocate, live_bytes, refit, verify
from carkp_bpu.compiler.group import Layer, Model
from carkp_bpu.compiler.maps import TensorMap, pixel_pitch
from carkp_bpu.compiler.tile import Level, Streams, TileMenu, TilePlan
from carkp_bpu.march import March
from carkp_core.errors import BackendError

#: Layers ahead of its use that a buffer may be filled.
_PREFETCH_LAYERS: dict[Level, int] = {"O0": 0, "O1": 1, "O2": 6}
_ROUNDS = 40
_SHRINK = 0.9


@frozen
class Target:
    """The machine and the effort."""

    march: March
    sram_bytes: int
    level: Level


@frozen(eq=False)
class Placement:
    """Tile plans by layer, resident tensors, and offsets in SRAM by buffer name (see ``buffer_name``)."""

    plans: tuple[TilePlan, ...]
    resident: frozenset[str]
    buffers: tuple[Buffer, ...] = field(repr=False)
    sram: Allocation


def resident_name(tensor: str) -> str:
    """The buffer of a tensor that stays on chip."""
    return f"tensor {tensor}"


def buffer_name(layer: int, role: str, slot: int = 0) -> str:
    """The buffer of a layer: role ``input`` (slot = operand), ``parameters``, ``output``, ``partial``."""
    return f"layer {layer} {role} {slot}"


def reside(model: Model, target: Target) -> Placement:
    """Choose residents, tiles and offsets.

    Raises
    ------
    BackendError
        When a layer's smallest tile is larger than the SRAM.
    """
    chooser = _Chooser(model, target)
    spilled: set[str] = set()
    shrink = 1.0
    for _ in range(_ROUNDS + len(model.layers)):
        resident = chooser.candidates - spilled
        plans, overflow = chooser.plan(resident, shrink)
        if overflow is not None:
            spilled.add(chooser.victim(overflow, resident))
            continue
        buffers = chooser.buffers(plans, resident)
        sram = allocate(buffers, target.sram_bytes)
        if sram is not None:
            return _finish(model, target, plans, resident, buffers, sram)
        shrink *= _SHRINK
        if shrink < 0.3:
            spilled.add(chooser.victim(chooser.tightest(buffers), resident))
            shrink = 1.0
    resident = frozenset()
    plans, _ = chooser.plan(resident, 1.0)
    buffers = chooser.buffers(plans, resident)
    sram = allocate(buffers, target.sram_bytes)
    assert sram is not None, "buffers of one layer at a time always fit"
    return _finish(model, target, plans, resident, buffers, sram)


def _finish(
    model: Model,
    target: Target,
    plans: tuple[TilePlan, ...],
    resident: frozenset[str],
    buffers: list[Buffer],
    sram: Allocation,
) -> Placement:
    buffers, sram = _prefetch(buffers, sram, target)
    verify(buffers, sram, target.sram_bytes)
    return Placement(plans, resident, tuple(buffers), sram)


def _prefetch(buffers: list[Buffer], sram: Allocation, target: Target) -> tuple[list[Buffer], Allocation]:
    """Let buffers that are filled from DDR begin earlier, one layer at a time, where there is room."""
    for index, buffer in enumerate(buffers):
        if " parameters " not in buffer.name and " input " not in buffer.name:
            continue
        for _ in range(min(_PREFETCH_LAYERS[target.level], buffer.first)):
            earlier = attrs.evolve(buffers[index], first=buffers[index].first - 1)
            moved = refit(buffers, sram, earlier, target.sram_bytes)
            if moved is None:
                break
            buffers[index], sram = earlier, moved
    return buffers, sram


class _Chooser:
    """Plans layers for a set of resident tensors; remembers what it has planned."""

    def __init__(self, model: Model, target: Target) -> None:
        self._model, self._target = model, target
        self._menus: dict[tuple[int, Streams], TileMenu] = {}
        self._made = {layer.output: index for index, layer in enumerate(model.layers)}
        self._last: dict[str, int] = {}
        for index, layer in enumerate(model.layers):
            for name in layer.inputs:
                self._last[model.root(name)] = index
        outputs = {model.root(name) for name in model.graph.outputs}
        keep = {name for name in self._made if name in self._last and name not in model.ddr_only}
        self.candidates: frozenset[str] = frozenset(keep) if target.level != "O0" else frozenset()
        self._outputs = outputs

    def plan(self, resident: frozenset[str], shrink: float) -> tuple[tuple[TilePlan, ...], int | None]:
        """A plan for every layer, or the index of the first layer for which there is no room."""
        live = live_bytes(self._resident_buffers(resident))
        plans: list[TilePlan] = []
        for index, layer in enumerate(self._model.layers):
            budget = self._target.sram_bytes - live.get(index, 0)
            streams = self._streams(layer, resident)
            menu, alone = self._menu(index, streams), not live.get(index)
            plan = menu.choose(int(budget * shrink), False) or menu.choose(budget, alone)
            if plan is None:
                if alone:
                    raise _too_small(layer, self._target)
                return tuple(plans), index
            plans.append(plan)
        return tuple(plans), None

    def victim(self, layer: int, resident: frozenset[str]) -> str:
        """The resident tensor, alive at a layer, whose way through DDR costs the fewest bytes for its room."""
        alive = [b for b in self._resident_buffers(resident) if b.first <= layer <= b.last]
        assert alive, "only residents can be in the way"
        names = {resident_name(name): name for name in resident}

        def cost(buffer: Buffer) -> tuple[float, int, str]:
            name = names[buffer.name]
            readers = sum(name in map(self._model.root, other.inputs) for other in self._model.layers)
            trips = readers + (name not in self._outputs)
            return trips / (buffer.last - buffer.first + 1), -buffer.size, name

        return names[min(alive, key=cost).name]

    def tightest(self, buffers: list[Buffer]) -> int:
        """The layer with the most live bytes that has residents."""
        live = live_bytes(buffers)
        with_residents = live_bytes([b for b in buffers if b.name.startswith("tensor ")])
        return max(with_residents, key=lambda layer: (live[layer], -layer))

    def buffers(self, plans: tuple[TilePlan, ...], resident: frozenset[str]) -> list[Buffer]:
        """Every buffer with its live range."""
        found = self._resident_buffers(resident)
        for index, plan in enumerate(plans):
            wanted: list[tuple[str, int, int]] = [
                ("input", slot, buffer.size) for slot, buffer in enumerate(plan.inputs) if buffer is not None
            ]
            wanted += [("parameters", slot, plan.parameter_bytes) for slot in range(plan.parameter_slots)]
            if plan.output is not None:
                wanted += [("output", slot, plan.output.size) for slot in range(plan.output_buffers)]
            if plan.partial_bytes:
                wanted.append(("partial", 0, plan.partial_bytes))
            found += [Buffer(buffer_name(index, role, slot), size, index, index) for role, slot, size in wanted]
        return found

    def _menu(self, index: int, streams: Streams) -> TileMenu:
        key = (index, streams)
        if key not in self._menus:
            lowering = self._model.layers[index].lowering
            self._menus[key] = TileMenu(lowering, streams, self._target.march, self._target.level)
        return self._menus[key]

    def _streams(self, layer: Layer, resident: frozenset[str]) -> Streams:
        inputs = tuple(self._model.root(name) not in resident for name in layer.inputs)
        return Streams(inputs, layer.output not in resident)

    def _resident_buffers(self, resident: frozenset[str]) -> list[Buffer]:
        return [
            Buffer(resident_name(name), self._size(self._model.maps[name]), self._made[name], self._last[name])
            for name in sorted(resident)
        ]

    def _size(self, tensor: TensorMap) -> int:
        pitch = pixel_pitch(tensor.channels, tensor.itemsize, self._target.march.channel_align)
        return tensor.height * tensor.width * pitch


def _too_small(layer: Layer, target: Target) -> BackendError:
    where = f"layer {layer.info.name}" + (f" of {layer.info.source}" if layer.info.source else "")
    return BackendError(
        "the smallest tile of this layer does not fit on chip",
        where=where,
        seen=f"{target.sram_bytes} bytes of SRAM",
        remedy="raise compile_cfg.sram_bytes, or make the layer narrower",
    )
