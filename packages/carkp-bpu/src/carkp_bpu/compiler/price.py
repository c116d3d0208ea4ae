"""What a piece of a program costs, for choosing only: cycles by the performance model's constants.

Engines and DDR work side by side; of the shorter part, a tile's share is exposed at the ends, but for what can be
loaded ahead of the layer (its parameters). Instructions are fetched before anything starts, so their bytes are time.
"""

from __future__ import annotations

from attrs import frozen

from carkp_bpu.march import March
from carkp_bpu.perf.cost import dma_cycles

#: Bytes of an instruction's record, about: a transfer's, and any other's.
_TRANSFER_BYTES, _COMPUTE_BYTES = 72, 150


@frozen
class Price:
    """Cycles of computation, cycles of transfers, bytes of instructions; prices add up.

    ``early`` are the transfers that do not depend on the layer before.
    """

    compute: float = 0.0
    transfer: float = 0.0
    early: float = 0.0
    instruction_bytes: int = 0

    def __add__(self, other: Price) -> Price:
        return Price(
            self.compute + other.compute,
            self.transfer + other.transfer,
            self.early + other.early,
            self.instruction_bytes + other.instruction_bytes,
        )

    def times(self, count: int) -> Price:
        """So many of these."""
        return Price(self.compute * count, self.transfer * count, self.early * count, self.instruction_bytes * count)

    def cycles(self, march: March, tiles: int, parallel: bool = True) -> float:
        """The time of work that is cut into so many tiles, parameters included."""
        fetch = self.instruction_bytes / march.dma_bytes_per_cycle
        if not parallel:
            return self.compute + self.transfer + self.early + fetch
        exposed = min(self.compute, self.transfer) / tiles
        return max(self.compute, self.transfer + self.early) + exposed + fetch


def transfer_price(bytes_moved: int, runs: int, march: March) -> Price:
    """One transfer of so many contiguous stretches."""
    if not bytes_moved:
        return Price()
    return Price(transfer=dma_cycles(bytes_moved, runs, march) + march.dma_cycles, instruction_bytes=_TRANSFER_BYTES)


def parameter_price(bytes_moved: int, march: March) -> Price:
    """The load of a block of parameters."""
    if not bytes_moved:
        return Price()
    return Price(early=dma_cycles(bytes_moved, 1, march) + march.dma_cycles, instruction_bytes=_TRANSFER_BYTES)


def compute_price(cycles: float, march: March) -> Price:
    """One instruction of an engine."""
    return Price(compute=cycles + march.instruction_cycles, instruction_bytes=_COMPUTE_BYTES)
