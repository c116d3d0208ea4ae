"""Which input rows an output row needs, for whole layers at once: what stripes and rolling buffers are counted with.

Before: a layer that answers for one tile. After: for every row r of its output, ``begins[r]``, the first input row
that a tile from r on reads, and ``ends[r]``, the input row behind the last one that a tile up to r reads.
Neither ever falls.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_bpu.compiler.lowering.base import Lowering
from carkp_bpu.compiler.maps import Region, Tile

IntArray = npt.NDArray[np.int64]


@frozen(eq=False)
class RowNeeds:
    """Rows of one input, by row of the output; both arrays are [output height]."""

    begins: IntArray = field(repr=False)
    ends: IntArray = field(repr=False)


def row_needs(lowering: Lowering) -> tuple[RowNeeds, ...]:
    """The needs of each input of a layer that is computed row by row."""
    out = lowering.output

    def regions(begin: int, end: int) -> tuple[Region | None, ...]:
        return lowering.regions(Tile(Region((begin, end), (0, out.width), (0, out.channels))))

    below = [regions(row, out.height) for row in range(out.height)]
    above = [regions(0, row + 1) for row in range(out.height)]
    needs = []
    for slot, source in enumerate(lowering.inputs):
        begins = [region.rows[0] if (region := found[slot]) else source.height for found in below]
        ends = [region.rows[1] if (region := found[slot]) else 0 for found in above]
        needs.append(RowNeeds(np.array(begins, dtype=np.int64), np.array(ends, dtype=np.int64)))
    return tuple(needs)
