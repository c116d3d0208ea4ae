"""Compiled inner loops of the graph simulator.

Rules that keep them fast, safe and few:

- Serial and ``nogil``: threads split the batch above them, so nothing here starts threads or allocates.
- Arrays are C-contiguous; most are flat, with explicit starts, so that few type combinations get compiled.
- Rescaling takes ``multiplier`` int32, ``shift`` int64 and ``offset`` int64, where
  ``offset = bias * multiplier + (1 << (shift - 1))``: bias and rounding in one addition (``ir.arithmetic`` is the
  definition; sums wrap in two's complement as numpy's do).
"""
