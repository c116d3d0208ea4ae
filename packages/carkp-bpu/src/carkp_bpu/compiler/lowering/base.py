"""What a layer tells the compiler: which input a tile needs, its parameters, its instructions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from carkp_bpu.compiler.maps import Parameters, Region, Step, TensorMap, Tile, Window
from carkp_bpu.hbm.geometry import Span
from carkp_bpu.march import March
from carkp_bpu.perf.cost import vector_cycles


class Lowering:
    """How one layer is computed tile by tile.

    Attributes
    ----------
    output, inputs:
        The layer's tensors.
    channel_step:
        Slices of output channels begin at multiples of this; the number of channels when they cannot be sliced.
    kernel_rows:
        Rows of the window when a layer can be summed in parts, else 1.
    """

    #: Reads its input wherever it lies, in DDR too, without a buffer in between.
    gathers: ClassVar[bool] = False

    #: The engine of its instructions.
    engine: ClassVar[str] = "vector"

    output: TensorMap
    inputs: tuple[TensorMap, ...]
    channel_step: int = 1
    kernel_rows: int = 1

    @property
    def row_by_row(self) -> bool:
        """Whether rows of the result come from rows of the inputs, in order: only then can it join a cascade."""
        return True

    def regions(self, tile: Tile) -> tuple[Region | None, ...]:
        """What a tile needs of each input; None for nothing."""
        raise NotImplementedError

    def parameters(self, channels: Span) -> tuple[bytes, ...]:
        """Parameter pieces of a slice of output channels."""
        return ()

    def parameter_sizes(self, channels: Span) -> tuple[int, ...]:
        """Bytes of each piece, without making them."""
        return tuple(len(piece) for piece in self.parameters(channels))

    def partial_bytes(self, tile: Tile) -> int:
        """Accumulators in SRAM for a tile that is computed in parts."""
        return 0

    def emit(
        self, tile: Tile, inputs: Sequence[Window], output: Window, parameters: Parameters, partial: int
    ) -> Iterator[Step]:
        """The instructions of a tile; windows hold at least the tile's regions."""
        raise NotImplementedError

    def cycles(self, region: Region, march: March) -> int:
        """Cycles that a tile keeps its engine busy, by the performance model."""
        return vector_cycles(self.feature_bytes(region), march)

    def feature_bytes(self, region: Region) -> int:
        """Bytes of feature maps that a tile reads and writes: an element of each input for one of the output."""
        taken = sum(source.itemsize for source in self.inputs) + self.output.itemsize
        return math.prod(region.counts) * taken


def needed(region: Region) -> Region | None:
    """The region, or None when it is empty."""
    return None if region.empty else region
