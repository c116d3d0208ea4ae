"""Layer by layer: which tensors stay on chip, and a tile plan for each layer within what they leave.

Before::

    conv a -> conv b -> conv c -> add(c, a)

After, where ``a`` and ``b`` do not fit together with the tiles of ``c``::

    conv a: 1 tile     a on chip, and stored
    conv b: 1 tile     b on chip
    conv c: 4 tiles    b from chip, c through DDR
    add:    4 tiles    c and a from DDR

O0 keeps nothing: every layer loads its inputs and stores its output. At O1 a tensor stays on chip from the layer that
makes it to the last one that reads it; where live tensors and the least buffers of a layer do not fit, the tensor whose
absence costs the fewest bytes goes through DDR instead. At O2 this plan competes with those of ``search``.
"""

from __future__ import annotations

from carkp_bpu.compiler.allocate import Buffer, allocate, live_bytes, verify
from carkp_bpu.compiler.group import Layer, Model
from carkp_bpu.compiler.placement import Lives, Placement, Target, Tiled, resident_name, wanted_buffers
from carkp_bpu.compiler.tile import Cuts, Streams, TileMenu, TilePlan
from carkp_core.errors import BackendError

_ROUNDS = 40
_SHRINK = 0.9


class Menus:
    """The tile menus of a model's layers, made when they are first asked for."""

    def __init__(self, model: Model, target: Target) -> None:
        self._target = target
        self._cuts = [Cuts(layer.lowering, target.march) for layer in model.layers]
        self._known: dict[tuple[int, Streams], TileMenu] = {}

    def of(self, index: int, streams: Streams) -> TileMenu:
        """The menu of a layer some of whose operands pass through DDR."""
        key = (index, streams)
        if key not in self._known:
            self._known[key] = TileMenu(self._cuts[index], streams, self._target.level)
        return self._known[key]


def reside(model: Model, target: Target, menus: Menus) -> Placement:
    """Choose residents, tiles and offsets.

    Raises
    ------
    BackendError
        When a layer's smallest tile is larger than the SRAM.
    """
    chooser = _Chooser(model, target, menus)
    spilled: set[str] = set()
    shrink = 1.0
    for _ in range(_ROUNDS + len(model.layers)):
        resident = chooser.candidates - spilled
        plans, overflow = chooser.plan(resident, shrink)
        if overflow is not None:
            spilled.add(chooser.victim(overflow, resident))
            continue
        placement = chooser.placed(plans, resident)
        if placement is not None:
            return placement
        shrink *= _SHRINK
        if shrink < 0.3:
            spilled.add(chooser.victim(chooser.tightest(plans, resident), resident))
            shrink = 1.0
    plans, _ = chooser.plan(frozenset(), 1.0)
    placement = chooser.placed(plans, frozenset())
    assert placement is not None, "buffers of one layer at a time always fit"
    return placement


class _Chooser:
    """Plans layers for a set of resident tensors."""

    def __init__(self, model: Model, target: Target, menus: Menus) -> None:
        self._model, self._target, self._menus = model, target, menus
        self._lives = Lives(model, target.march)
        self.candidates = self._lives.candidates if target.level != "O0" else frozenset()

    def plan(self, resident: frozenset[str], shrink: float) -> tuple[tuple[TilePlan, ...], int | None]:
        """A plan for every layer, or the index of the first layer for which there is no room."""
        live = live_bytes(self._resident_buffers(resident))
        plans: list[TilePlan] = []
        for index, layer in enumerate(self._model.layers):
            budget = self._target.sram_bytes - live.get(index, 0)
            menu, alone = self._menus.of(index, self._streams(layer, resident)), not live.get(index)
            found = menu.choose(int(budget * shrink), False) or menu.choose(budget, alone)
            if found is None:
                if alone:
                    raise too_small(layer, self._target)
                return tuple(plans), index
            plans.append(found[1])
        return tuple(plans), None

    def placed(self, plans: tuple[TilePlan, ...], resident: frozenset[str]) -> Placement | None:
        """Offsets for a plan, or None where the search finds none."""
        segments = tuple(Tiled(index, plan) for index, plan in enumerate(plans))
        buffers = wanted_buffers(self._model, self._lives, segments, resident)
        sram = allocate(buffers, self._target.sram_bytes)
        if sram is None:
            return None
        verify(buffers, sram, self._target.sram_bytes)
        return Placement(segments, resident, tuple(buffers), sram)

    def victim(self, layer: int, resident: frozenset[str]) -> str:
        """The resident tensor, alive at a layer, whose way through DDR costs the fewest bytes for its room."""
        alive = [b for b in self._resident_buffers(resident) if b.first <= layer <= b.last]
        assert alive, "only residents can be in the way"
        names = {resident_name(name): name for name in resident}

        def cost(buffer: Buffer) -> tuple[float, int, str]:
            name = names[buffer.name]
            readers = sum(name in map(self._model.root, other.inputs) for other in self._model.layers)
            trips = readers + (name not in self._lives.outputs)
            return trips / (buffer.last - buffer.first + 1), -buffer.size, name

        return names[min(alive, key=cost).name]

    def tightest(self, plans: tuple[TilePlan, ...], resident: frozenset[str]) -> int:
        """The layer with the most live bytes that has residents."""
        segments = [Tiled(index, plan) for index, plan in enumerate(plans)]
        live = live_bytes(wanted_buffers(self._model, self._lives, segments, resident))
        with_residents = live_bytes(self._resident_buffers(resident))
        return max(with_residents, key=lambda layer: (live[layer], -layer))

    def _streams(self, layer: Layer, resident: frozenset[str]) -> Streams:
        inputs = tuple(self._model.root(name) not in resident for name in layer.inputs)
        return Streams(inputs, layer.output not in resident)

    def _resident_buffers(self, resident: frozenset[str]) -> list[Buffer]:
        lives = self._lives
        return [
            Buffer(resident_name(name), lives.size(name), lives.made[name], lives.last[name])
            for name in sorted(resident)
        ]


def too_small(layer: Layer, target: Target) -> BackendError:
    """What to tell about a layer that cannot be cut small enough."""
    where = f"layer {layer.info.name}" + (f" of {layer.info.source}" if layer.info.source else "")
    return BackendError(
        "the smallest tile of this layer does not fit on chip",
        where=where,
        seen=f"{target.sram_bytes} bytes of SRAM",
        remedy="raise compile_cfg.sram_bytes, or make the layer narrower",
    )
