"""Segments and offsets -> instructions with debug entries, in program order and without waits yet.

For each tile: loads of what it needs and does not have, then its computation, then the store of its result when the
tensor (also) lives in DDR. In a cascade the tiles of a step are the new rows of each of its layers, first to last.

Before::

    cascade of layers 0..1, 8 rows of layer 1 a step     ring of layer 0's output: 10 slots

After::

    load params 0   load params 1
    load img 0..9   conv 0: rows 0..9     conv 1: rows 0..8     store rows 0..8
    load img 9..17  conv 0: rows 9..17    conv 1: rows 8..16    store rows 8..16
    ...

A structured instruction finds its rows in the ring by itself. Loads, stores and element-wise instructions are cut into
two where the ring wraps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from carkp_bpu.compiler.group import Layer, Model
from carkp_bpu.compiler.homes import Constants
from carkp_bpu.compiler.lowering.movement import InDdr, Movement
from carkp_bpu.compiler.maps import MapBuffer, Parameters, Region, Step, Tile, Window, whole
from carkp_bpu.compiler.pieces import ddr_piece, sram_piece
from carkp_bpu.compiler.placement import (
    Cascade,
    Placement,
    Target,
    Tiled,
    buffer_name,
    full_buffer,
    resident_name,
    ring_name,
    stream_name,
)
from carkp_bpu.compiler.tile import TilePlan
from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import DebugTable, InstructionInfo, Operand, Piece, TensorInfo
from carkp_bpu.hbm.geometry import Span


@frozen
class Emitted:
    """Instructions in program order and the debug table that goes with them."""

    instructions: tuple[isa.Instruction, ...]
    debug: DebugTable


@frozen
class _Running:
    """A cascade on its way: rows loaded of each input so far, and parameters by layer."""

    segment: Cascade
    loaded: dict[str, int]
    blocks: dict[int, Parameters]


def emit(
    model: Model,
    placement: Placement,
    homes: Mapping[str, int],
    parameters: Mapping[tuple[int, Span], int],
    target: Target,
) -> Emitted:
    """Instructions of the whole network.

    Parameters
    ----------
    model, placement, target:
        Layers, their tiles and offsets, the machine.
    homes:
        DDR address of every tensor that has one, by root name.
    parameters:
        DDR address of the parameter block of (layer, channel slice).
    """
    emitter = _Emitter(model, placement, homes, parameters, target)
    for segment in placement.segments:
        if isinstance(segment, Tiled):
            emitter.tiled(segment)
        else:
            emitter.cascade(segment)
    return emitter.finish()


def store_parameters(model: Model, placement: Placement, constants: Constants) -> dict[tuple[int, Span], int]:
    """Put every slice's parameter block into the constants, in the order of use."""
    found: dict[tuple[int, Span], int] = {}
    for segment in placement.segments:
        if isinstance(segment, Tiled):
            slices = [tile.region.channels for tile in segment.plan.tiles] if segment.plan.parameter_slots else []
            keys = [(segment.layer, channels) for channels in slices]
        else:
            blocks = segment.parameter_bytes.items()
            keys = [(index, (0, model.layers[index].lowering.output.channels)) for index, size in blocks if size]
        for index, channels in keys:
            if (index, channels) not in found:
                content = b"".join(model.layers[index].lowering.parameters(channels))
                found[index, channels] = constants.add(content)
    return found


class _Emitter:
    def __init__(
        self,
        model: Model,
        placement: Placement,
        homes: Mapping[str, int],
        parameters: Mapping[tuple[int, Span], int],
        target: Target,
    ) -> None:
        self._model, self._placement, self._homes, self._parameters = model, placement, homes, parameters
        self._march = target.march
        self._offsets = placement.sram.offsets
        self._outputs = {model.root(name) for name in model.graph.outputs}
        self._instructions: list[isa.Instruction] = []
        self._infos: list[InstructionInfo] = []
        self._tensors: list[TensorInfo] = [TensorInfo(n, m.dtype, m.shape) for n, m in model.maps.items()]
        self._numbers = {info.name: number for number, info in enumerate(self._tensors)}
        self._ready: dict[str, int] = {}
        self._passing: list[Piece] = []
        self._layer = 0

    def finish(self) -> Emitted:
        layers = tuple(layer.info for layer in self._model.layers)
        debug = DebugTable(layers, tuple(self._tensors), tuple(self._infos), tuple(self._pieces()))
        return Emitted(tuple(self._instructions), debug)

    def tiled(self, segment: Tiled) -> None:
        """All tiles of a layer."""
        self._layer = index = segment.layer
        plan, layer = segment.plan, self._model.layers[segment.layer]
        for k, tile in enumerate(plan.tiles):
            windows = [self._input(index, layer, slot, plan, k) for slot in range(len(layer.inputs))]
            block = self._slice_parameters(index, layer, plan, k)
            output = self._output(index, layer, plan, tile, k)
            if isinstance(layer.lowering, Movement) and self._streams(layer.inputs[0]):
                root = self._model.root(layer.inputs[0])
                source = InDdr(self._numbers[root], self._homes[root])
                self._add(layer.lowering.emit_gather(tile, source, output))
            else:
                partial = self._offsets.get(buffer_name(index, "partial"), 0)
                self._add(layer.lowering.emit(tile, windows, output, block, partial))
            if tile.last_part and (plan.output is not None or layer.output in self._outputs):
                self._add(self._transfer(isa.Store, self._homes[layer.output], tile.region, output))
        self._ready[layer.output] = len(self._instructions) - 1

    def cascade(self, segment: Cascade) -> None:
        """All steps of a cascade."""
        shape = segment.shape
        running = _Running(segment, {name: ring.start for name, ring in shape.taken.items()}, {})
        for step in range(shape.steps):
            for index in range(shape.first, shape.last + 1):
                layer = self._model.layers[index]
                done = shape.made[layer.output].done
                rows = (int(done[step - 1]) if step else 0, int(done[step]))
                if rows[0] < rows[1]:
                    self._layer = index
                    self._stripe(running, layer, rows, step)
        for index in range(shape.first, shape.last + 1):
            self._ready[self._model.layers[index].output] = len(self._instructions) - 1

    def _stripe(self, running: _Running, layer: Layer, rows: Span, step: int) -> None:
        """The rows of one layer in one step."""
        out = layer.lowering.output
        tile = Tile(Region(rows, (0, out.width), (0, out.channels)))
        regions = layer.lowering.regions(tile)
        windows = [
            self._empty(name) if region is None else self._stripe_input(running, name, step)
            for name, region in zip(layer.inputs, regions, strict=True)
        ]
        output = self._made(running.segment, layer.output)
        block = self._whole_parameters(running, layer)
        self._add(layer.lowering.emit(tile, windows, output, block, 0))
        if layer.output in running.segment.rings:
            ready = len(self._instructions) - 1
            self._passing.append(sram_piece(self._numbers[layer.output], output, rows, ready))
        if layer.output in self._homes:
            self._add(self._transfer(isa.Store, self._homes[layer.output], tile.region, output))

    def _whole_parameters(self, running: _Running, layer: Layer) -> Parameters:
        """A layer's parameters, loaded by its first stripe."""
        index = self._layer
        if index not in running.blocks:
            running.blocks[index] = Parameters((), 0)
            if running.segment.parameter_bytes[index]:
                channels, address = (0, layer.lowering.output.channels), self._offsets[buffer_name(index, "parameters")]
                running.blocks[index] = self._load_parameters(index, layer, channels, address, True)
        return running.blocks[index]

    def _stripe_input(self, running: _Running, name: str, step: int) -> Window:
        """The window of an input; what this step needs of it is loaded by the first layer that reads it."""
        segment = running.segment
        if name not in segment.inputs:
            return self._made(segment, name)
        address = self._offsets[stream_name(segment.shape.first, name)]
        tensor = self._model.maps[name]
        window = self._window(name, address, segment.inputs[name], whole(tensor))
        begin, end = running.loaded[name], int(segment.shape.taken[name].done[step])
        if begin < end:
            region = Region((begin, end), (0, tensor.width), (0, tensor.channels))
            self._add(self._transfer(isa.Load, self._homes[self._model.root(name)], region, window))
            running.loaded[name] = end
        return window

    def _made(self, segment: Cascade, name: str) -> Window:
        """A tensor on chip: in its ring, or as a whole."""
        if name not in segment.rings:
            return self._resident(name)
        return self._window(name, self._offsets[ring_name(name)], segment.rings[name], whole(self._model.maps[name]))

    def _add(self, steps: Iterator[Step]) -> None:
        for step in steps:
            self._instructions.append(step.instruction)
            self._infos.append(InstructionInfo(self._layer, step.operands))

    def _streams(self, name: str) -> bool:
        return self._model.root(name) not in self._placement.resident

    def _input(self, index: int, layer: Layer, slot: int, plan: TilePlan, k: int) -> Window:
        """The window of an input for tile ``k``, its loads done."""
        name = layer.inputs[slot]
        if not self._streams(name):
            return self._resident(name)
        buffer = plan.inputs[slot]
        needs = layer.lowering.regions(plan.tiles[k])[slot]
        if buffer is None or needs is None:
            return self._empty(name)
        address = self._offsets[buffer_name(index, "input", slot)]
        first_row = 0 if plan.rolling else needs.rows[0]
        window = self._window(name, address, buffer, needs, first_row)
        load = plan.loads[k][slot]
        if load is not None:
            self._add(self._transfer(isa.Load, self._homes[self._model.root(name)], load, window))
        return window

    def _slice_parameters(self, index: int, layer: Layer, plan: TilePlan, k: int) -> Parameters:
        if not plan.parameter_slots:
            return Parameters((), 0)
        slot, load = plan.slots[k]
        address = self._offsets[buffer_name(index, "parameters", slot)]
        return self._load_parameters(index, layer, plan.tiles[k].region.channels, address, load)

    def _load_parameters(self, index: int, layer: Layer, channels: Span, address: int, load: bool) -> Parameters:
        sizes = layer.lowering.parameter_sizes(channels)
        number = self._number(f"{layer.output}:parameters[{channels[0]}:{channels[1]}]")
        if load:
            made = isa.Load(
                isa.NO_WAITS, self._parameters[index, channels], address, (1, 1, 1, sum(sizes)), (0, 0, 0), (0, 0, 0)
            )
            self._add(iter([Step(made, (Operand(number), Operand(number)))]))
        return Parameters(tuple(address + sum(sizes[:i]) for i in range(len(sizes))), number)

    def _output(self, index: int, layer: Layer, plan: TilePlan, tile: Tile, k: int) -> Window:
        if plan.output is None:
            return self._resident(layer.output)
        # All parts of a tile leave their result in one buffer.
        turn = sum(other.last_part for other in plan.tiles[:k]) % plan.output_buffers
        address = self._offsets[buffer_name(index, "output", turn)]
        return self._window(layer.output, address, plan.output, tile.region, tile.region.rows[0])

    def _resident(self, name: str) -> Window:
        tensor, address = self._model.maps[name], self._offsets[resident_name(self._model.root(name))]
        return self._window(name, address, full_buffer(tensor, self._march), whole(tensor))

    def _empty(self, name: str) -> Window:
        """A window of which nothing is read: the tile lies on padding."""
        tensor = self._model.maps[name]
        return self._window(name, 0, full_buffer(tensor, self._march), whole(tensor))

    def _window(self, name: str, address: int, buffer: MapBuffer, holds: Region, first_row: int = 0) -> Window:
        root = self._model.root(name)
        return Window(
            tensor=self._numbers[root],
            map=self._model.maps[name],
            address=address,
            channels=holds.channels,
            pixel_pitch=buffer.pixel_pitch,
            row_pitch=buffer.row_pitch,
            ring_rows=buffer.rows,
            first_row=first_row,
            first_column=holds.columns[0],
            rows_followed=self._model.one_row_order(root),
        )

    def _transfer(
        self, kind: type[isa.Load] | type[isa.Store], home: int, region: Region, window: Window
    ) -> Iterator[Step]:
        """Move a region between its dense place in DDR and a window; one instruction where the ring does not wrap."""
        tensor = window.map
        size = tensor.itemsize
        pixel, row = tensor.channels * size, tensor.width * tensor.channels * size
        _, columns, channels = region.counts
        joined = channels == tensor.channels and window.pixel_pitch == pixel
        run, pixels = (columns * pixel, 1) if joined else (channels * size, columns)
        for rows in window.runs(region.rows):
            count = rows[1] - rows[0]
            made = kind(
                isa.NO_WAITS,
                home + rows[0] * row + region.columns[0] * pixel + region.channels[0] * size,
                window.place(rows[0], region.columns[0], region.channels[0]),
                (count, pixels, 1, run),
                (row, pixel, 0),
                (window.row_pitch, window.pixel_pitch, 0),
            )
            operand = window.operand(rows[0])
            yield Step(made, (operand, operand))

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._tensors)
            self._tensors.append(TensorInfo(name, "int8"))
        return self._numbers[name]

    def _pieces(self) -> Iterator[Piece]:
        """Where every tensor can be read once it is made, other names included."""
        passing = {piece.tensor for piece in self._passing}
        yield from self._passing
        for name, tensor in self._model.maps.items():
            root = self._model.root(name)
            ready = self._ready.get(root, 0)
            if self._numbers[name] in passing:
                continue
            if root in self._placement.resident:
                yield sram_piece(self._numbers[name], self._resident(name), (0, tensor.height), ready)
            elif root in self._homes:
                yield ddr_piece(self._numbers[name], tensor, self._homes[root], ready)
