"""Where a tensor, or some rows of it, can be read: entries of the debug table for taps."""

from __future__ import annotations

from carkp_bpu.compiler.maps import TensorMap, Window
from carkp_bpu.hbm.debug import Piece
from carkp_bpu.hbm.geometry import Span


def sram_piece(number: int, window: Window, rows: Span, ready: int) -> Piece:
    """Rows of a tensor that lies on chip in its whole width, once instruction ``ready`` is done."""
    tensor = window.map
    return Piece(
        tensor=number,
        in_ddr=False,
        ready=ready,
        address=window.address,
        rows=rows,
        columns=(0, tensor.width),
        channels=(0, tensor.channels),
        pixel_pitch=window.pixel_pitch,
        row_pitch=window.row_pitch,
        ring_rows=window.ring_rows,
        first_row=window.first_row,
        first_column=window.first_column,
    )


def ddr_piece(number: int, tensor: TensorMap, address: int, ready: int) -> Piece:
    """A whole tensor in DDR."""
    pixel = tensor.channels * tensor.itemsize
    return Piece(
        tensor=number,
        in_ddr=True,
        ready=ready,
        address=address,
        rows=(0, tensor.height),
        columns=(0, tensor.width),
        channels=(0, tensor.channels),
        pixel_pitch=pixel,
        row_pitch=tensor.width * pixel,
        ring_rows=tensor.height,
        first_row=0,
        first_column=0,
    )
