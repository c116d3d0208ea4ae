"""The integer arithmetic of carkp, written down once. Every executor must equal it bit for bit.

Rescaling is TOSA's RESCALE with a 32-bit multiplier and a single rounding, half up:

    q = clamp((acc * multiplier + (1 << (shift - 1))) >> shift, lo, hi)

in 64-bit integers. ``acc`` fits int32 and ``multiplier`` lies in [0, 2**31), so the product fits int64 with room
for the rounding term. The converter's own multipliers lie in [2**30, 2**31) with shifts in [2, 62], so that
``multiplier / 2**shift`` carries the 24 significant bits of a float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[Any]

MULTIPLIER_MIN = 1 << 30
MULTIPLIER_MAX = (1 << 31) - 1
SHIFT_MIN = 2
SHIFT_MAX = 62
#: Fractional bits that the terms of an add keep until they are summed.
ADD_FRACTION_BITS = 15
#: Bound of one term of an add, so that a sum of many terms stays inside int64.
ADD_TERM_LIMIT = 1 << 46
#: Fractional bits of an interpolated int16 table's result (TOSA TABLE).
TABLE_FRACTION_BITS = 7

INT_RANGE = {"int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(1 << 31), (1 << 31) - 1)}


def rescale_ratio(scale_x: float, scale_w: float, scale_y: float) -> np.float32:
    """``float32(float32(s_x * s_w) / s_y)``: the real factor of a rescale, in this order of roundings."""
    product = np.float32(np.float32(scale_x) * np.float32(scale_w))
    return np.float32(product / np.float32(scale_y))


def multiplier_and_shift(ratio: float) -> tuple[int, int]:
    """The integers with ``multiplier / 2**shift == float32(ratio)`` exactly.

    Raises
    ------
    ValueError
        When the ratio is not positive and finite, or its shift leaves [2, 62].
    """
    value = float(np.float32(ratio))
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"a rescale needs a positive finite ratio, not {ratio!r}")
    mantissa, exponent = math.frexp(value)
    multiplier, shift = int(mantissa * (1 << 31)), 31 - exponent
    if not SHIFT_MIN <= shift <= SHIFT_MAX:
        raise ValueError(f"ratio {value!r} needs shift {shift}, outside [{SHIFT_MIN}, {SHIFT_MAX}]")
    return multiplier, shift


def shift_right_round(value: IntArray, shift: IntArray | int) -> IntArray:
    """``(value + (1 << (shift - 1))) >> shift`` in int64: divide by 2**shift, round half up. 0 <= shift <= 62.

    A shift of 0, which only a product of int32 tensors has, leaves the value as it is.
    """
    shift64 = np.asarray(shift, dtype=np.int64)
    return np.right_shift(np.asarray(value, dtype=np.int64) + rounding_half(shift64), shift64)


def rounding_half(shift: IntArray | int) -> IntArray:
    """What rounding adds before a shift to the right: half of the last bit kept, 0 for a shift of 0; int64."""
    return np.right_shift(np.left_shift(np.int64(1), np.asarray(shift, dtype=np.int64)), 1)


def rescale(acc: IntArray, multiplier: IntArray | int, shift: IntArray | int, lo: int, hi: int) -> IntArray:
    """RESCALE with single rounding, clamped to [lo, hi]; int64. Arguments broadcast."""
    product = np.asarray(acc, dtype=np.int64) * np.asarray(multiplier, dtype=np.int64)
    return np.clip(shift_right_round(product, shift), lo, hi)


def rescale_term(value: IntArray, multiplier: IntArray | int, shift: IntArray | int) -> IntArray:
    """One term of an add: rescaled to the output scale with 15 fractional bits, clamped to +-2**46; int64."""
    limit = ADD_TERM_LIMIT
    return rescale(value, multiplier, np.asarray(shift, dtype=np.int64) - ADD_FRACTION_BITS, -limit, limit)


def finish_add(total: IntArray, lo: int, hi: int) -> IntArray:
    """Drop an add's 15 fractional bits with the same rounding and clamp; int64."""
    return np.clip(shift_right_round(total, ADD_FRACTION_BITS), lo, hi)


def table_int8(value: IntArray, table: IntArray) -> IntArray:
    """Look int8 values up in a table of 256 entries, entry 0 for -128. ``table`` is [256] or [C, 256] (NCHW)."""
    index = np.asarray(value, dtype=np.int64) + 128
    if table.ndim == 1:
        return table[index]
    channel = np.arange(table.shape[0]).reshape(1, -1, *([1] * (index.ndim - 2)))
    return table[channel, index]


def table_int16(value: IntArray, table: IntArray, dropped_bits: int = TABLE_FRACTION_BITS) -> IntArray:
    """TOSA's interpolated table of 513 int16 entries; int64.

    Interpolating makes 7 fractional bits. All are dropped with the same rounding, which leaves an int16, or none
    are (``dropped_bits`` 0), which is TOSA's own 32-bit result.
    """
    wide = np.asarray(value, dtype=np.int64)
    index, fraction = (wide >> TABLE_FRACTION_BITS) + 256, wide & ((1 << TABLE_FRACTION_BITS) - 1)
    entries = table.astype(np.int64)
    base, following = entries[index], entries[index + 1]
    interpolated = (base << TABLE_FRACTION_BITS) + (following - base) * fraction
    return np.clip(shift_right_round(interpolated, dropped_bits), *INT_RANGE["int16" if dropped_bits else "int32"])


def build_table(function: Callable[[npt.NDArray[np.float64]], Any], scale_x: float, scale_y: float) -> IntArray:
    """The 256 int8 entries of a float64 function: round half even of f(s_x q) / s_y, clamped."""
    q = np.arange(-128, 128, dtype=np.float64) * float(np.float32(scale_x))
    entries = np.rint(np.asarray(function(q), dtype=np.float64) / float(np.float32(scale_y)))
    return np.clip(entries, -128, 127).astype(np.int8)


def build_table_int16(function: Callable[[npt.NDArray[np.float64]], Any], scale_x: float, scale_y: float) -> IntArray:
    """The 513 int16 entries at q = -32768, -32640, ..., 32768 of a float64 function."""
    q = np.arange(-32768, 32769, 128, dtype=np.float64) * float(np.float32(scale_x))
    entries = np.rint(np.asarray(function(q), dtype=np.float64) / float(np.float32(scale_y)))
    return np.clip(entries, -32768, 32767).astype(np.int16)


def quantize(value: npt.NDArray[Any], scale: float, dtype: str) -> IntArray:
    """Round half even of value / scale in float64, clamped to the type's range."""
    lo, hi = INT_RANGE[dtype]
    steps = np.rint(np.asarray(value, dtype=np.float64) / float(np.float32(scale)))
    return np.clip(steps, lo, hi).astype(dtype)


def dequantize(value: IntArray, scale: float) -> npt.NDArray[np.float32]:
    """``float32(q) * float32(scale)``, the same in every stage."""
    return value.astype(np.float32) * np.float32(scale)
