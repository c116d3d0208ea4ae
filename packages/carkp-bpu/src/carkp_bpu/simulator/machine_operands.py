"""Reading and writing operands in modelled memory.

An ``Operand`` is a place to read from: [M, bytes] where M is the number of frames, or 1 when the bytes come from the
constants and are the same for every frame.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import frozen

from carkp_bpu.hbm.footprint import Access, Box

Bytes: TypeAlias = npt.NDArray[np.uint8]
IntArray: TypeAlias = npt.NDArray[Any]

NUMPY: dict[int, np.dtype[Any]] = {1: np.dtype("int8"), 2: np.dtype("<i2"), 4: np.dtype("<i4")}


@frozen
class Operand:
    """Bytes to read, and where they are. ``memory`` holds addresses from ``origin`` on."""

    memory: Bytes
    access: Access
    origin: int = 0


@frozen
class Target:
    """Memory [N, bytes] to write to; it holds addresses from ``origin`` on."""

    memory: Bytes
    access: Access
    origin: int = 0


def typed(memory: Bytes, code: int) -> IntArray:
    return memory[:, : memory.shape[1] // code * code].view(NUMPY[code])


def view(memory: Bytes, box: Box, origin: int = 0) -> Bytes:
    """Bytes of a box for every frame, [M, *counts]."""
    strides = (memory.strides[0], *box.strides)
    return np.lib.stride_tricks.as_strided(memory[:, box.address - origin :], (len(memory), *box.counts), strides)


def gather_bytes(operand: Operand) -> Bytes:
    """Bytes of an operand, its boxes joined along the first dimension."""
    views = [view(operand.memory, box, operand.origin) for box in operand.access.boxes]
    return views[0] if len(views) == 1 else np.concatenate(views, axis=1)


def gather(operand: Operand, code: int) -> IntArray:
    """Elements of an operand: [M, rows, columns, channels] of a map, [M, *dims] of a view (1 where broadcast)."""
    raw = gather_bytes(operand)
    shape = raw.shape
    elements = raw.view(NUMPY[code]) if raw.strides[-1] == 1 else np.ascontiguousarray(raw).view(NUMPY[code])
    return elements[..., 0] if len(shape) == 6 else elements


def block(operand: Operand, dtype: np.dtype[Any], every_frame: bool = False) -> IntArray:
    """A contiguous operand: of the first frame [elements], or of every frame [M, elements]."""
    raw = np.ascontiguousarray(gather_bytes(operand) if every_frame else gather_bytes(operand)[:1])
    elements = raw.view(dtype)
    return elements if every_frame else elements[0]


def scatter(target: Target, values: IntArray, code: int) -> None:
    """Write elements, cast to the operand's type, where the access says; values broadcast over frames."""
    elements = values.astype(NUMPY[code], copy=False)
    begin = 0
    for box in target.access.boxes:
        place = view(target.memory, box).view(NUMPY[code])
        if len(box.counts) == 5:
            place[..., 0] = elements
        elif len(target.access.boxes) == 1:
            place[...] = elements
        else:
            place[...] = elements[:, begin : begin + box.counts[0]]
        begin += box.counts[0]


def for_frames(values: IntArray, target: Target) -> IntArray:
    """Values for every frame of the target, also when they are the same for all."""
    frames = len(target.memory)
    return values if len(values) == frames else np.repeat(values, frames, axis=0)


def owned(values: IntArray) -> IntArray:
    """Contiguous and writeable, so that compiled loops and torch see one kind of array."""
    dense = np.ascontiguousarray(values)
    return dense if dense.flags.writeable else dense.copy()
