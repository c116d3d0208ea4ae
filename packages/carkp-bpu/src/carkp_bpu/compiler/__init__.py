"""Integer graph -> layers -> tiles -> on-chip allocation -> instructions -> waits -> program.

======================= ==========================================================================================
module                  pass
======================= ==========================================================================================
``group``, ``lowering`` nodes become layers; each says what a tile needs, its parameters, its instructions
``tile``                a layer is cut into rows, columns and output-channel slices
``reside``              which tensors stay on chip; buffers and their live ranges; prefetch
``allocate``            offsets, and the verifier of every plan
``homes``               addresses in DDR
``emit``                instructions with debug entries, in program order
``schedule``            waits between engines
``compile``             all of it in order
======================= ==========================================================================================
"""

from __future__ import annotations
