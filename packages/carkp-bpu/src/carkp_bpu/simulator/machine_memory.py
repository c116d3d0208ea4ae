"""The modelled memories of a batch: SRAM and what lies behind the constants in DDR, for every frame.

Legend: ``N`` frames of a batch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.debug import Piece, TensorInfo
from carkp_bpu.hbm.description import Port
from carkp_bpu.hbm.footprint import Access
from carkp_bpu.hbm.program import HbmProgram
from carkp_bpu.simulator.machine_operands import Operand, Target

IntArray = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

#: Rows of elements keep this alignment. An odd number of them between frames spreads equal addresses over the cache.
_LINE = 64
#: Vector kernels may read this far behind a pixel.
_MARGIN = 128


class Memories:
    """SRAM [N, bytes] and a frame's part of DDR [N, bytes]. What earlier batches left stays: no program reads it."""

    def __init__(self, program: HbmProgram, frames: int) -> None:
        about = program.description
        self.frames = frames
        self.constant_bytes = about.constant_bytes
        self.sram = _rows(frames, about.sram_bytes)
        self.ddr = _rows(frames, about.ddr_bytes - about.constant_bytes)
        self.constants = np.frombuffer(program.constants, dtype=np.uint8)[None]
        self.room = np.zeros(0, dtype=np.uint8)

    def part(self, begin: int, end: int) -> Frames:
        """Some of the frames."""
        return Frames(self, self.sram[begin:end], self.ddr[begin:end])

    def scratch(self, size: int) -> Bytes:
        """Room of at least ``size`` bytes that one instruction uses at a time."""
        if self.room.size < size:
            self.room = np.zeros(size, dtype=np.uint8)
        return self.room

    def put(self, port: Port, value: IntArray) -> None:
        """Lay an input [n, C, ...] into DDR, n frames of it."""
        start = port.ddr - self.constant_bytes
        dtype = np.dtype(port.dtype).newbyteorder("<")
        count, channels, pixels = len(value), port.shape[1] if len(port.shape) > 1 else 1, math.prod(port.shape[2:])
        size = channels * pixels * dtype.itemsize
        place = self.ddr[:count, start : start + size].view(dtype).reshape(count, pixels, channels)
        np.copyto(place, value.reshape(count, channels, pixels).transpose(0, 2, 1))

    def get(self, port: Port, frames: int) -> IntArray:
        """An output [n, C, ...] from DDR; it may lie in the constants."""
        size = math.prod(port.shape) * isa.DTYPE_CODES[port.dtype]
        begin = port.ddr - self.constant_bytes
        raw = self.constants[:, port.ddr : port.ddr + size] if begin < 0 else self.ddr[:frames, begin : begin + size]
        raw = np.broadcast_to(raw, (frames, size))
        return _channels_first(np.ascontiguousarray(raw).view(np.dtype(port.dtype)), port.shape)


@frozen(eq=False)
class Frames:
    """Some frames' memories."""

    memories: Memories
    sram: Bytes
    ddr: Bytes

    def operand(self, access: Access) -> Operand:
        """Where an operand is read from."""
        if access.space == "sram":
            return Operand(self.sram, access)
        return Operand(self.ddr, access, self.memories.constant_bytes)

    def target(self, access: Access) -> Target:
        """Where a result is written to."""
        if access.space == "sram":
            return Target(self.sram, access)
        return Target(self.ddr, access, self.memories.constant_bytes)

    def piece(self, piece: Piece, itemsize: int) -> Bytes:
        """Bytes [n, rows, columns, channels x itemsize] of a part of a tensor."""
        memory, address = self.sram, piece.address
        if piece.in_ddr:
            memory, address = self.ddr, piece.address - self.memories.constant_bytes
            if address < 0:
                constants = self.memories.constants
                memory, address = np.broadcast_to(constants, (len(self.ddr), constants.shape[1])), piece.address
        slots = (np.arange(*piece.rows) - piece.first_row) % piece.ring_rows * piece.row_pitch
        columns = (np.arange(*piece.columns) - piece.first_column) * piece.pixel_pitch
        channels = np.arange((piece.channels[1] - piece.channels[0]) * itemsize)
        return memory[:, address + slots[:, None, None] + columns[:, None] + channels]


class Tap:
    """A tensor put together from its pieces."""

    def __init__(self, info: TensorInfo, frames: int) -> None:
        self._info = info
        height, width, channels = isa.map_shape(info.shape)
        self._value = np.zeros((frames, height, width, channels), dtype=info.dtype)

    def take(self, piece: Piece, frames: Frames, begin: int) -> None:
        """Copy one piece of the frames from ``begin`` on."""
        raw = frames.piece(piece, self._value.itemsize)
        region = (slice(*piece.rows), slice(*piece.columns), slice(*piece.channels))
        found = np.ascontiguousarray(raw).view(self._value.dtype)
        self._value[begin : begin + len(found), region[0], region[1], region[2]] = found

    def value(self) -> IntArray:
        """The tensor [N, C, ...]."""
        return _channels_first(self._value, self._info.shape)


def _rows(frames: int, size: int) -> Bytes:
    """Zeros [frames, size], rows aligned, readable a little beyond their end."""
    lines = -(-(size + 1) // _LINE) | 1
    whole = np.zeros(frames * lines * _LINE + _LINE + _MARGIN, dtype=np.uint8)
    begin = -whole.ctypes.data % _LINE
    return whole[begin : begin + frames * lines * _LINE].reshape(frames, lines * _LINE)


def _channels_first(dense: IntArray, shape: tuple[int, ...]) -> IntArray:
    """[N, any order of HWC elements] as [N, C, ...]; ``shape`` is (1, C, ...)."""
    if len(shape) < 2:
        return dense.reshape(-1, *shape[1:])
    return np.ascontiguousarray(np.moveaxis(dense.reshape(-1, *shape[2:], shape[1]), -1, 1))
