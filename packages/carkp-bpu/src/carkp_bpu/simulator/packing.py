"""Weights and rescale numbers as the vector kernels (``kernels.fused``) take them, and when they may be taken.

The vector kernels rescale in float64, ``floor(sum * factor + offset)``. That equals the integers' definition where
every ``sum * multiplier + offset`` is a float64 as it stands: below 2**53 after the zeros at its end are dropped. The
bound of the sums is known from the weights, so this is proven channel by channel when a layer is lowered.

Legend: ``C`` output channels, ``K`` products in a sum, ``T`` taps of a depthwise kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from attrs import field, frozen
from numba.core import codegen, config

Array = npt.NDArray[np.generic]

NEEDED = ("+avx512f", "+avx512bw", "+avx512vl", "+avx512dq", "+avx512vnni")
#: Whole numbers that a float64 holds, and results that an int32 holds.
EXACT_BITS = 53
RESULT_LIMIT = 2.0**30
#: With an add's fractional bits: below the clamp of its terms, and below what int32 holds after they are dropped.
TERM_LIMIT = 2.0**44
#: Bytes that kernels may read beyond a row, or write beyond their room for windows.
MARGIN = 64
#: What flipping the highest bit adds to an activation.
SHIFTED = 128


def has_instructions() -> bool:
    """Whether numba compiles for a CPU with the instructions of the vector kernels."""
    if config.CPU_NAME == "generic" and config.CPU_FEATURES is None:
        return False
    features = config.CPU_FEATURES if config.CPU_FEATURES is not None else codegen.get_host_cpu_features()
    return set(NEEDED) <= set(str(features).split(","))


@frozen(eq=False)
class Tables:
    """Float64 factors and offsets [C] that give the integers' results."""

    factor: npt.NDArray[np.float64] = field()
    offset: npt.NDArray[np.float64]


def exact_tables(
    multiplier: Sequence[int], offset: Sequence[int], shift: Sequence[int], largest: Sequence[int], limit: float
) -> Tables | None:
    """Tables for ``(sum * multiplier + offset) >> shift`` of sums up to ``largest``, or None if not proven exact.

    One of each for every channel; results must stay below ``limit``.
    """
    factors, offsets = [], []
    for m, o, s, bound in zip(multiplier, offset, shift, largest, strict=True):
        total = bound * m + abs(o)
        common = m | o
        zeros = (common & -common).bit_length() - 1 if common else 0
        if total >> zeros >= 1 << EXACT_BITS or total >= limit * 2.0**s:
            return None
        factors.append(float(m) * 2.0**-s)
        offsets.append(float(o) * 2.0**-s)
    return Tables(np.array(factors), np.array(offsets))


def pack_matrix(weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """int8 [K, C] in tiles of 64 channels (the last of 16, 32, 48 or 64), each [K / 4, channels, 4], zeros added."""
    depth, channels = weight.shape
    padded = np.zeros((-(-depth // 4) * 4, -(-channels // 16) * 16), dtype=np.int8)
    padded[:depth, :channels] = weight
    tiles = [padded[:, first : first + 64] for first in range(0, padded.shape[1], 64)]
    return np.concatenate([t.reshape(-1, 4, t.shape[1]).transpose(0, 2, 1).reshape(-1) for t in tiles])


def pack_tables(tables: Tables) -> npt.NDArray[np.float64]:
    """float64 [2, C rounded up to 16]."""
    padded = np.zeros((2, -(-tables.factor.size // 16) * 16))
    padded[0, : tables.factor.size], padded[1, : tables.factor.size] = tables.factor, tables.offset
    return padded


def depthwise_blocks(channels: int) -> list[tuple[int, int]]:
    """(first channel, width) of the blocks that a pixel's channels are computed in."""
    blocks = [(first, 64) for first in range(0, channels // 64 * 64, 64)]
    first = len(blocks) * 64
    if channels - first >= 32:
        blocks.append((first, 32))
        first += 32
    return blocks + [(start, 16) for start in range(first, channels, 16)]


def pack_depthwise(
    weight: npt.NDArray[np.int8], tables: Tables
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """int8 [T, C] and tables, block by block in the order that ``vectors`` interleaves bytes in."""
    taps, channels = weight.shape
    wide = channels + 64
    padded = np.zeros((-(-taps // 4) * 4, wide), dtype=np.int8)
    padded[:taps, :channels] = weight
    numbers = np.zeros((2, wide))
    numbers[0, :channels], numbers[1, :channels] = tables.factor, tables.offset
    weights, rescales = [], []
    for first, width in depthwise_blocks(channels):
        # Sum j of 128-bit lane l and place i belongs to channel 16 l + 4 j + i.
        j, lane, i = np.ogrid[:4, : width // 16, :4]
        order = first + (16 * lane + 4 * j + i).reshape(-1)
        weights.append(padded[:, order].reshape(-1, 4, width).transpose(0, 2, 1).reshape(-1))
        rescales.append(numbers[:, order].reshape(-1))
    return np.concatenate(weights), np.concatenate(rescales)
