"""Integer graph -> layers -> tiles and cascades -> on-chip allocation -> instructions -> waits -> program.

============================ =====================================================================================
module                       pass
============================ =====================================================================================
``group``, ``lowering``      nodes become layers; each says what a tile needs, its parameters, its instructions
``tile``                     a layer is cut into rows, columns and output-channel slices
``rows``, ``cascade``        runs of layers stripe by stripe, with rolling buffers
``reside``                   layer by layer: which tensors stay on chip
``segments``, ``search``     cuts, stripes and residents together, by dynamic programming; ``price`` estimates times
``placement``                what all of them decide: segments, residents, buffers with their live ranges
``allocate``, ``skyline``    offsets, and the verifier of every plan
``prefetch``                 buffers that are loaded begin earlier
``homes``                    addresses in DDR
``emit``, ``pieces``         instructions with debug entries, in program order
``schedule``                 waits between engines
``compile``                  all of it in order; the fastest of several plans
``picture``                  what the passes made, as text
============================ =====================================================================================
"""

from __future__ import annotations
