"""How one layer is cut into tiles: rows, columns, output-channel slices, and the buffers they need.

Before: a layer, and which of its tensors are on chip. After: tiles in order, what each one loads first, and the
buffers' sizes. Inputs in DDR pass through rolling buffers, so that rows shared by neighbouring tiles are loaded once
(not at O0); parameters of a slice are loaded when it begins. The choice with the least estimated time wins.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

from attrs import frozen

from carkp_bpu.compiler.lowering.base import Lowering
from carkp_bpu.compiler.maps import MapBuffer, Region, TensorMap, Tile, length, pixel_pitch
from carkp_bpu.compiler.price import Price, compute_price, parameter_price, transfer_price
from carkp_bpu.hbm.geometry import Span
from carkp_bpu.march import March

Level = Literal["O0", "O1", "O2"]

#: Shapes with more tiles than the first are looked at only when no other fits, with more than the second never.
_FEW_TILES = 48
_MANY_TILES = 512
#: Families of shapes that a layer is cut into as long as it competes with resident tensors.
_USUAL_FAMILIES = 3
#: Slices whose parameters may be waited for, where that makes them larger.
_WAITED_SLICES = 4


@frozen
class Streams:
    """Which operands pass through DDR."""

    inputs: tuple[bool, ...]
    output: bool


@frozen
class TileShape:
    """Sizes of a tile.

    ``slices_outer``: all rows of a channel slice first, else all slices of some rows. ``turns``: two slots of
    parameters take turns, so that a slice's are loaded under the one before; else the next slice waits for them.
    """

    rows: int
    columns: int
    channels: int
    part_rows: int
    slices_outer: bool
    turns: bool = True


@frozen
class TilePlan:
    """Tiles in order with their loads, and the buffers of a layer.

    ``loads[k][i]`` is what tile k loads of input i first. ``slots[k]`` is the parameter slot of tile k and whether it
    has to be loaded. Inputs and outputs that stay on chip have no buffer here.
    """

    shape: TileShape
    tiles: tuple[Tile, ...]
    loads: tuple[tuple[Region | None, ...], ...]
    slots: tuple[tuple[int, bool], ...]
    inputs: tuple[MapBuffer | None, ...]
    rolling: bool
    parameter_bytes: int
    parameter_slots: int
    output: MapBuffer | None
    output_buffers: int
    partial_bytes: int
    ddr_bytes: int
    #: The input is read from DDR into the tile, without a buffer.
    gathered: bool

    @property
    def sram_bytes(self) -> int:
        """All buffers of the layer, each rounded up as the allocator does."""
        sizes = [buffer.size for buffer in self.inputs if buffer is not None]
        sizes += [self.parameter_bytes] * self.parameter_slots
        sizes += [self.output.size] * self.output_buffers if self.output is not None else []
        sizes += [self.partial_bytes]
        return sum(-(-size // 16) * 16 for size in sizes)


class Cuts:
    """One layer cut by shapes: tiles and the regions they read, made once for all menus of the layer."""

    def __init__(self, lowering: Lowering, march: March) -> None:
        self.lowering, self.march = lowering, march
        self._tiles: dict[TileShape, tuple[Tile, ...]] = {}
        self._regions: dict[Tile, tuple[Region | None, ...]] = {}
        self._compute: dict[tuple[int, int, int], Price] = {}

    def tiles(self, shape: TileShape) -> tuple[Tile, ...]:
        """The tiles in the order of computation."""
        if shape not in self._tiles:
            self._tiles[shape] = tuple(_tiles(self.lowering, shape))
        return self._tiles[shape]

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """What a tile reads of each input."""
        if tile not in self._regions:
            self._regions[tile] = self.lowering.regions(tile)
        return self._regions[tile]

    def compute(self, region: Region) -> Price:
        """The price of computing a tile."""
        counts = region.counts
        if counts not in self._compute:
            self._compute[counts] = compute_price(self.lowering.cycles(region, self.march), self.march)
        return self._compute[counts]


class TileMenu:
    """The plans of one layer worth choosing from, made when they are first needed.

    Of two plans the one that is both slower and larger is dropped, so what is left is sorted: faster costs more SRAM.
    """

    def __init__(self, cuts: Cuts, streams: Streams, level: Level) -> None:
        self._cuts, self._streams, self._level = cuts, streams, level
        self._families = _shape_families(cuts.lowering, streams)
        self._fronts: list[list[tuple[float, TilePlan]]] = []

    def choose(self, budget: int, at_any_cost: bool) -> tuple[float, TilePlan] | None:
        """The plan of least estimated time within ``budget`` bytes of SRAM, and that time, or None when nothing fits.

        Plans of very many tiles are considered only ``at_any_cost``.
        """
        for front in itertools.islice(self._known_fronts(), None if at_any_cost else _USUAL_FAMILIES):
            for cycles, plan in front:
                if plan.sram_bytes <= budget:
                    return cycles, plan
        return None

    def _cycles(self, plan: TilePlan) -> float:
        return _price(self._cuts, plan).cycles(self._cuts.march, len(plan.tiles), parallel=self._level != "O0")

    def _known_fronts(self) -> Iterator[list[tuple[float, TilePlan]]]:
        yield from self._fronts
        for shapes in self._families:
            plans = [plan_tiles(self._cuts, self._streams, shape, self._level) for shape in shapes]
            costs = [(self._cycles(plan), plan) for plan in plans]
            costs.sort(key=lambda item: (item[0], item[1].sram_bytes))
            front: list[tuple[float, TilePlan]] = []
            for cycles, plan in costs:
                if not front or plan.sram_bytes < front[-1][1].sram_bytes:
                    front.append((cycles, plan))
            self._fronts.append(front)
            yield front


def plan_tiles(cuts: Cuts, streams: Streams, shape: TileShape, level: Level) -> TilePlan:
    """Cut a layer by a shape."""
    lowering, march, tiles = cuts.lowering, cuts.march, cuts.tiles(shape)
    regions = [cuts.regions(tile) for tile in tiles]
    overlap = level != "O0"
    buffers: list[MapBuffer | None] = []
    columns: list[list[Region | None]] = []
    for index, streamed in enumerate(streams.inputs):
        own = [needs[index] for needs in regions]
        if not streamed or lowering.gathers:
            buffers.append(None)
            columns.append([None] * len(tiles))
            continue
        buffer = _input_buffer(own, lowering.inputs[index], march, overlap)
        buffers.append(buffer)
        columns.append(_loads(own, buffer.rows if buffer else 0, overlap))
    sizes = _parameter_sizes(lowering, tiles)
    slots, count = _parameter_slots(tiles, sizes, overlap and shape.turns)
    moved = sum(_dense(region, lowering.inputs[i]) for i, own in enumerate(columns) for region in own if region)
    moved += sum(sizes[tile.region.channels] for tile, (_, load) in zip(tiles, slots, strict=True) if load)
    moved += lowering.output.dense_bytes if streams.output else 0
    gathered = lowering.gathers and streams.inputs[0]
    moved += lowering.output.dense_bytes if gathered else 0
    return TilePlan(
        shape=shape,
        tiles=tiles,
        loads=tuple(zip(*columns, strict=True)) if columns else tuple(() for _ in tiles),
        slots=slots,
        inputs=tuple(buffers),
        rolling=overlap,
        parameter_bytes=max(sizes.values()),
        parameter_slots=count,
        output=_output_buffer(lowering.output, shape, march) if streams.output else None,
        output_buffers=(2 if overlap and len(tiles) > 1 else 1) if streams.output else 0,
        partial_bytes=max(lowering.partial_bytes(tile) for tile in tiles),
        ddr_bytes=moved,
        gathered=gathered,
    )


def _shape_families(lowering: Lowering, streams: Streams) -> Iterator[list[TileShape]]:
    """Shapes in families, from usual to desperate: few tiles, many, columns cut too, windows cut into parts.

    Rows are cut only where something streams or memory is short: on chip, one tile does.
    """
    out = lowering.output
    rows, columns = _divisions(out.height), _divisions(out.width)
    kernel, step = lowering.kernel_rows, lowering.channel_step
    channels = sorted({_stepped(c, step, out.channels) for c in _divisions(out.channels)}, reverse=True)
    streaming = streams.output or any(streams.inputs)
    usual = _shapes(lowering, rows if streaming else rows[:1], [out.width], channels, [kernel])
    yield [shape for shape in usual if _tile_count(lowering, shape) <= _FEW_TILES]
    yield [shape for shape in usual if _tile_count(lowering, shape) > _FEW_TILES]
    yield _shapes(lowering, rows[-2:], columns[1:], channels[-4:], [kernel])
    if kernel > 1:
        yield _shapes(lowering, [1], columns[-1:], channels, _divisions(kernel)[1:])
    for width in columns:
        yield [TileShape(1, width, channels[-1], kernel, True)]
    yield [TileShape(1, 1, channels[-1], 1, True)]


def _shapes(
    lowering: Lowering, rows: Sequence[int], columns: Sequence[int], channels: Sequence[int], parts: Sequence[int]
) -> list[TileShape]:
    """Every combination with a bearable number of tiles, in both orders where they differ."""
    out, found = lowering.output, []
    for r, x, c, part in itertools.product(rows, columns, channels, parts):
        orders = (True, False) if c < out.channels and r * x < out.height * out.width else (True,)
        found += [TileShape(r, x, c, part, order) for order in orders]
        if len(orders) > 1 and c * _WAITED_SLICES >= out.channels and any(lowering.parameter_sizes((0, c))):
            found.append(TileShape(r, x, c, part, True, turns=False))
    return [shape for shape in found if _tile_count(lowering, shape) <= _MANY_TILES]


def _tile_count(lowering: Lowering, shape: TileShape) -> int:
    out = lowering.output
    tiles = math.ceil(out.height / shape.rows) * math.ceil(out.width / shape.columns)
    return tiles * math.ceil(out.channels / shape.channels) * math.ceil(lowering.kernel_rows / shape.part_rows)


def _divisions(size: int) -> list[int]:
    """A size divided by 1, 2, 4, 8, ... down to 1, rounded up; falling, without repeats."""
    powers = (1 << n for n in range(max(size - 1, 0).bit_length() + 1))
    return list(dict.fromkeys(math.ceil(size / p) for p in powers))


def _stepped(size: int, step: int, most: int) -> int:
    return min(most, max(step, math.ceil(size / step) * step))


def _cut(size: int, step: int) -> list[Span]:
    return [(at, min(at + step, size)) for at in range(0, size, step)]


def _tiles(lowering: Lowering, shape: TileShape) -> Iterator[Tile]:
    """Tiles in the order of computation: columns change least within a slice, so that rows can roll."""
    out = lowering.output
    slices = _cut(out.channels, shape.channels)
    places = [(rows, columns) for columns in _cut(out.width, shape.columns) for rows in _cut(out.height, shape.rows)]
    parts = _cut(lowering.kernel_rows, shape.part_rows)
    if shape.slices_outer:
        order = [(place, own) for own in slices for place in places]
    else:
        order = [(place, own) for place in places for own in slices]
    for (rows, columns), channels in order:
        region = Region(rows, columns, channels)
        if len(parts) == 1:
            yield Tile(region)
        else:
            for part in parts:
                yield Tile(region, part, part == parts[-1])


def _input_buffer(regions: Sequence[Region | None], tensor: TensorMap, march: March, overlap: bool) -> MapBuffer | None:
    """A buffer that holds any tile's region; with ``overlap`` also the rows that the next tile adds."""
    present = [region for region in regions if region is not None]
    if not present:
        return None
    rows, before = 1, None
    for region in present:
        first = region.rows[0]
        if overlap and before is not None and _continues(before, region):
            first = min(first, before.rows[0])
        rows = max(rows, region.rows[1] - first)
        before = region
    channels = max(length(region.channels) for region in present)
    columns = max(length(region.columns) for region in present)
    return MapBuffer(rows, columns, channels, pixel_pitch(channels, tensor.itemsize, march.channel_align))


def _continues(held: Region, region: Region) -> bool:
    """Whether a region lies at or below the one held, in the same columns and channels."""
    same = held.columns == region.columns and held.channels == region.channels
    return same and held.rows[0] <= region.rows[0] <= held.rows[1]


def _loads(regions: Sequence[Region | None], ring_rows: int, rolling: bool) -> list[Region | None]:
    """What each tile has to load when the buffer keeps the last ``ring_rows`` rows."""
    found: list[Region | None] = []
    held: Region | None = None
    for region in regions:
        if region is None:
            found.append(None)
            continue
        new = region
        if held is not None and rolling and _continues(held, region):
            new = Region((max(held.rows[1], region.rows[0]), region.rows[1]), region.columns, region.channels)
            end = max(held.rows[1], region.rows[1])
            held = Region((max(held.rows[0], end - ring_rows), end), region.columns, region.channels)
        elif held == region:
            new = Region((0, 0), region.columns, region.channels)
        else:
            held = region
        found.append(None if new.empty else new)
    return found


def _parameter_sizes(lowering: Lowering, tiles: Sequence[Tile]) -> dict[Span, int]:
    sizes: dict[Span, int] = {}
    for tile in tiles:
        channels = tile.region.channels
        if channels not in sizes:
            sizes[channels] = sum(lowering.parameter_sizes(channels))
    return sizes


def _parameter_slots(
    tiles: Sequence[Tile], sizes: dict[Span, int], turns: bool
) -> tuple[tuple[tuple[int, bool], ...], int]:
    """Slot of each tile's parameters and whether they have to be loaded; two slots take turns."""
    if not any(sizes.values()):
        return tuple((0, False) for _ in tiles), 0
    order = {channels: index for index, channels in enumerate(sizes)}
    count = min(2 if turns else 1, len(sizes))
    held: dict[int, Span] = {}
    found = []
    for tile in tiles:
        channels = tile.region.channels
        slot = order[channels] % count
        found.append((slot, held.get(slot) != channels))
        held[slot] = channels
    return tuple(found), count


def _output_buffer(tensor: TensorMap, shape: TileShape, march: March) -> MapBuffer:
    pitch = pixel_pitch(shape.channels, tensor.itemsize, march.channel_align)
    return MapBuffer(shape.rows, shape.columns, shape.channels, pitch)


def _dense(region: Region, tensor: TensorMap) -> int:
    return math.prod(region.counts) * tensor.itemsize


def _price(cuts: Cuts, plan: TilePlan) -> Price:
    """What a layer's tiles cost."""
    lowering, march = cuts.lowering, cuts.march
    sizes = Counter(tile.region.counts for tile in plan.tiles)
    regions = {tile.region.counts: tile.region for tile in plan.tiles}
    price = Price()
    for counts, times in sizes.items():
        price = price + cuts.compute(regions[counts]).times(times)
        if plan.output is not None:
            price = price + _move_price(counts, lowering.output, march).times(times)
        if plan.gathered:
            price = price + _move_price(counts, lowering.output, march).times(times)
    loads = Counter((slot, load.counts) for own in plan.loads for slot, load in enumerate(own) if load is not None)
    for (slot, counts), times in loads.items():
        price = price + _move_price(counts, lowering.inputs[slot], march).times(times)
    blocks = [tile.region.channels for tile, (_, load) in zip(plan.tiles, plan.slots, strict=True) if load]
    for channels, times in Counter(blocks[1:]).items():
        load = transfer_price(sum(lowering.parameter_sizes(channels)), 1, march).times(times)
        # With one slot nothing is computed meanwhile.
        price = price + load + Price(compute=0.0 if plan.shape.turns else load.transfer)
    if blocks:
        price = price + parameter_price(sum(lowering.parameter_sizes(blocks[0])), march)
    return price


def _move_price(counts: tuple[int, int, int], tensor: TensorMap, march: March) -> Price:
    """A box of a tensor to or from its dense place in DDR."""
    rows, columns, channels = counts
    runs = rows * columns
    if channels == tensor.channels:
        runs = 1 if columns == tensor.width else rows
    return transfer_price(math.prod(counts) * tensor.itemsize, runs, march)
