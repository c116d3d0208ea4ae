"""How one layer is cut into tiles: rows, columns, output-channel slices, and the buffers they need.

Before: a layer, and which of its tensors are on chip. After: tiles in order, what each one loads first, and the
buffers' sizes. Inputs in DDR pass through rolling buffers, so that rows shared by neighbouring tiles are loaded once
(not at O0); parameters of a slice are loaded when it begins. The choice with the least estimated time wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from attrs import frozen

from carkp_bpu.compiler.lowering.base import Lowering
from carkp_bpu.compiler.maps import Region, TensorMap, Tile, length, pixel_pitch
from carkp_bpu.hbm.geometry import Span
from carkp_bpu.march import March

Level = Literal["O0", "O1", "O2"]

#: Shapes with more tiles than this are looked at only when no other fits.
_MANY_TILES = 2048


@frozen
class Streams:
    """Which operands pass through DDR."""

    inputs: tuple[bool, ...]
    output: bool


@frozen
class TileShape:
    """Sizes of a tile. ``slices_outer``: all rows of a channel slice first, else all slices of some rows."""

    rows: int
    columns: int
    channels: int
    part_rows: int
    slices_outer: bool


@frozen
class MapBuffer:
    """SRAM for part of a tensor: slots of rows, columns and channels, in the machine's layout."""

    rows: int
    columns: int
    channels: int
    pixel_pitch: int

    @property
    def row_pitch(self) -> int:
        """Bytes from row to row."""
        return self.columns * self.pixel_pitch

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.row_pitch


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

    @property
    def sram_bytes(self) -> int:
        """All buffers of the layer, each rounded up as the allocator does."""
        sizes = [buffer.size for buffer in self.inputs if buffer is not None]
        sizes += [self.parameter_bytes] * self.parameter_slots
        sizes += [self.output.size] * self.output_buffers if self.output is not None else []
        sizes += [self.partial_bytes]
        return sum(-(-size // 16) * 16 for size in sizes)


def choose_tiles(lowering: Lowering, streams: Streams, budget: int, march: March, level: Level) -> TilePlan | None:
    """The plan of least estimated time within ``budget`` bytes of SRAM, or None when nothing fits."""
    for shapes in _shape_families(lowering, streams):
        best: tuple[float, int, TilePlan] | None = None
        for shape in shapes:
            plan = plan_tiles(lowering, streams, shape, march, level)
            if plan is None or plan.sram_bytes > budget:
                continue
            cost = (_cycles(lowering, plan, march, level), plan.sram_bytes)
            if best is None or cost < best[:2]:
                best = (*cost, plan)
        if best is not None:
            return best[2]
    return None


def plan_tiles(lowering: Lowering, streams: Streams, shape: TileShape, march: March, level: Level) -> TilePlan | None:
    """Cut a layer by a shape; None when its slices need more than one pass that the layer cannot do."""
    tiles = tuple(_tiles(lowering, shape))
    regions = [lowering.regions(tile) for tile in tiles]
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
    slots, count = _parameter_slots(tiles, sizes, overlap)
    moved = sum(_dense(region, lowering.inputs[i]) for i, own in enumerate(columns) for region in own if region)
    moved += sum(sizes[tile.region.channels] for tile, (_, load) in zip(tiles, slots, strict=True) if load)
    moved += lowering.output.dense_bytes if streams.output else 0
    if lowering.gathers and streams.inputs[0]:
        moved += lowering.output.dense_bytes
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
    )


def _shape_families(lowering: Lowering, streams: Streams) -> Iterator[list[TileShape]]:
    """Shapes in families, from usual to desperate: rows and slices; columns too; parts of windows too."""
    out = lowering.output
    rows, columns = _divisions(out.height), _divisions(out.width)
    channels = sorted(
        {_stepped(c, lowering.channel_step, out.channels) for c in _divisions(out.channels)}, reverse=True
    )
    kernel = lowering.kernel_rows

    def shapes(all_rows: Sequence[int], all_columns: Sequence[int], parts: Sequence[int]) -> list[TileShape]:
        found = []
        for r in all_rows:
            for x in all_columns:
                for c in channels:
                    for part in parts:
                        tiles = math.ceil(out.height / r) * math.ceil(out.width / x) * math.ceil(out.channels / c)
                        if tiles * math.ceil(kernel / part) <= _MANY_TILES:
                            orders = (True, False) if c < out.channels and r * x < out.height * out.width else (True,)
                            found += [TileShape(r, x, c, part, order) for order in orders]
        return found

    yield shapes(rows, [out.width], [kernel])
    yield shapes(rows[-2:], columns[1:], [kernel])
    if kernel > 1:
        yield shapes([1], columns[-1:], _divisions(kernel)[1:])
    smallest = channels[-1]
    for x in columns:
        yield [TileShape(1, x, smallest, kernel, True)]
    yield [TileShape(1, 1, smallest, 1, True)]


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
    tiles: Sequence[Tile], sizes: dict[Span, int], overlap: bool
) -> tuple[tuple[tuple[int, bool], ...], int]:
    """Slot of each tile's parameters and whether they have to be loaded; two slots take turns."""
    if not any(sizes.values()):
        return tuple((0, False) for _ in tiles), 0
    order = {channels: index for index, channels in enumerate(sizes)}
    count = min(2 if overlap else 1, len(sizes))
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


def _cycles(lowering: Lowering, plan: TilePlan, march: March, level: Level) -> float:
    """A rough time: transfers beside computation, exposed at the ends; for choosing only."""
    count = len(plan.tiles)
    transfer = plan.ddr_bytes / march.dma_bytes_per_cycle
    compute = lowering.macs / march.macs_per_cycle + lowering.output.dense_bytes / march.vector_bytes_per_cycle
    fixed = count * (march.instruction_cycles + march.dma_cycles)
    if level == "O0":
        return transfer + compute + fixed
    return max(transfer, compute) + min(transfer, compute) / count + fixed
