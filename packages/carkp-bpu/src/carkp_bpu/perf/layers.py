"""A layer as the performance model sees it, and the time of a list of layers without a compiler.

``schedule`` is the quick estimate: it needs neither tiles nor addresses, so it serves the fit to published
measurements and a graph that was refused. Compiled programs are timed instruction by instruction (``timeline``).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from carkp_bpu.march.base import March
from carkp_bpu.perf.cost import ConvWork, conv_cycles, dma_cycles, vector_cycles

#: Weights are streamed in pieces; the convolution starts with the first piece.
WEIGHT_PIECE_BYTES = 64 * 1024
#: Bytes of an output channel's parameters: bias, multiplier, shift.
PARAMETER_BYTES = 4 + 4 + 1


@frozen
class Layer:
    """One layer: its products, or else the bytes that pass the vector engine; its constants; its feature maps.

    ``free`` layers move nothing: a reshape that only renames dimensions.
    """

    name: str
    kind: str
    conv: ConvWork | None
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    source: str = ""
    elements: int = 0
    free: bool = False

    @property
    def ops(self) -> int:
        """Two operations a multiply-accumulate; an element of the output counts one elsewhere."""
        return 2 * self.conv.macs if self.conv else self.elements

    def compute_cycles(self, march: March) -> int:
        """Cycles of its engine."""
        if self.free:
            return 0
        if self.conv:
            return conv_cycles(self.conv, march)
        return vector_cycles(self.input_bytes + self.output_bytes, march)


@frozen
class LayerTime:
    """When a layer ran, in cycles: DDR from ``load_start``, engine from ``start`` to ``end``."""

    layer: Layer
    compute_cycles: int
    loaded_bytes: int
    stored_bytes: int
    ddr_cycles: int
    load_start: int
    load_end: int
    start: int
    end: int


def schedule(layers: Sequence[Layer], march: March, sram_bytes: int | None = None) -> list[LayerTime]:
    """Time layers one after the other, with constants fetched ahead into half of the on-chip memory.

    A feature map travels through DDR when it exceeds the on-chip memory (a smaller one is computed in stripes that
    stay there); the first input and the last output always do.

    Parameters
    ----------
    layers:
        In execution order.
    sram_bytes:
        On-chip memory; None for the march's.
    """
    sram = sram_bytes or march.sram_bytes
    times: list[LayerTime] = []
    ddr_free = engine_free = 0
    for index, layer in enumerate(layers):
        map_in, map_out = _map_bytes(layers, index, sram)
        ddr_bytes = layer.weight_bytes + map_in + map_out
        load_start = max(ddr_free, _room(times, layer.weight_bytes, sram // 2))
        ddr_cycles = dma_cycles(ddr_bytes, 1, march) + march.dma_cycles if ddr_bytes else 0
        load_end = load_start + ddr_cycles
        compute = layer.compute_cycles(march)
        overhead = 0 if layer.free else march.layer_cycles + march.instruction_cycles
        pieces = 1 + ddr_bytes // WEIGHT_PIECE_BYTES
        start = max(engine_free, load_start + ddr_cycles // pieces)
        end = max(start + compute + overhead, load_end + compute // pieces)
        times.append(
            LayerTime(layer, compute, ddr_bytes - map_out, map_out, ddr_cycles, load_start, load_end, start, end)
        )
        ddr_free, engine_free = load_end, end
    return times


def _map_bytes(layers: Sequence[Layer], index: int, sram: int) -> tuple[int, int]:
    """DDR bytes of a layer's feature maps: in when the map before it was spilled, out when its own is."""
    layer, last = layers[index], len(layers) - 1
    spilled_in = index == 0 or _spills(layers[index - 1], sram)
    spilled_out = index == last or _spills(layer, sram)
    return layer.input_bytes * spilled_in, layer.output_bytes * spilled_out


def _spills(layer: Layer, sram: int) -> bool:
    return layer.output_bytes > sram


def _room(times: Sequence[LayerTime], incoming: int, window: int) -> int:
    """When the constants of enough layers are done with for ``incoming`` bytes to fit into the window."""
    held = min(incoming, window)
    for time in reversed(times):
        held += time.layer.weight_bytes
        if held > window:
            return time.end
    return 0
