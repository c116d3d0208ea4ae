"""Buffers that are filled from DDR begin earlier where there is room, so that their loads run under earlier layers.

Before::

    layer 6 parameters: layers 6..6 at 0x8000        loaded when layer 5, which used these bytes, is done

After::

    layer 6 parameters: layers 3..6 at 0x5000        loaded under layers 3, 4 and 5

Only O2 does it.
"""

from __future__ import annotations

import itertools

import attrs

from carkp_bpu.compiler.allocate import lowest, refit, verify
from carkp_bpu.compiler.placement import Placement

#: Segments ahead of its use that a buffer may be filled.
_SEGMENTS = 6
#: Height over live bytes, less one, that is good enough.
_OVERHEAD = 0.005


def prefetch(placement: Placement, sram_bytes: int) -> Placement:
    """The same plan with longer lives for buffers of parameters and inputs: all by one segment, then all by another."""
    buffers, sram = list(placement.buffers), placement.sram
    before = {segment.span[0]: earlier.span[0] for earlier, segment in itertools.pairwise(placement.segments)}
    filled = [i for i, b in enumerate(buffers) if " parameters " in b.name or " input " in b.name]
    for _ in range(_SEGMENTS):
        moved = []
        for index in filled:
            if buffers[index].first not in before:
                continue
            earlier = attrs.evolve(buffers[index], first=before[buffers[index].first])
            found = refit(buffers, sram, earlier, sram_bytes)
            if found is not None:
                buffers[index], sram = earlier, found
                moved.append(index)
        filled = moved
    if sram.overhead > _OVERHEAD:
        # Moving buffers one by one has raised the top; look once more for a place for all of them.
        lower = lowest(buffers, enough=int(sram.bound * (1 + _OVERHEAD)))
        sram = lower if lower.height < sram.height else sram
    verify(buffers, sram, sram_bytes)
    return attrs.evolve(placement, buffers=tuple(buffers), sram=sram)
