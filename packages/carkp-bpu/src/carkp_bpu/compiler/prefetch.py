"""Buffers that are filled from DDR begin earlier where there is room, so that their loads run under earlier layers.

Before::

    layer 6 parameters: layers 6..6 at 0x8000        loaded when layer 5, which used these bytes, is done

After::

    layer 6 parameters: layers 3..6 at 0x5000        loaded under layers 3, 4 and 5

Only O2 does it.
"""

from __future__ import annotations

import attrs

from carkp_bpu.compiler.allocate import lowest, refit, verify
from carkp_bpu.compiler.placement import Placement

#: Layers ahead of its use that a buffer may be filled.
_LAYERS = 6
#: Height over live bytes, less one, that is good enough.
_OVERHEAD = 0.005


def prefetch(placement: Placement, sram_bytes: int) -> Placement:
    """The same plan with longer lives for buffers of parameters and inputs."""
    buffers, sram = list(placement.buffers), placement.sram
    for index, buffer in enumerate(buffers):
        if " parameters " not in buffer.name and " input " not in buffer.name:
            continue
        for _ in range(min(_LAYERS, buffer.first)):
            earlier = attrs.evolve(buffers[index], first=buffers[index].first - 1)
            moved = refit(buffers, sram, earlier, sram_bytes)
            if moved is None:
                break
            buffers[index], sram = earlier, moved
    if sram.overhead > _OVERHEAD:
        # Moving buffers one by one has raised the top; look once more for a place for all of them.
        lower = lowest(buffers, enough=int(sram.bound * (1 + _OVERHEAD)))
        sram = lower if lower.height < sram.height else sram
    verify(buffers, sram, sram_bytes)
    return attrs.evolve(placement, buffers=tuple(buffers), sram=sram)
