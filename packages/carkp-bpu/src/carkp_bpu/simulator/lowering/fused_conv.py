"""Int8 convolutions on the vector kernels: a call for each product, with the rescaling in it.

Taken where the machine has the instructions, input and output are int8 and the float64 rescaling is proven exact;
``conv`` does the rest. Legend: as in ``conv``.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen

from carkp_bpu.simulator import packing
from carkp_bpu.simulator.kernels import fused
from carkp_bpu.simulator.lowering.base import Array, Bind, Rescale, Run, Scratch
from carkp_bpu.simulator.lowering.part import Part, Window
from carkp_core.ir.arithmetic import rescale as rescaled

#: Bytes of matrix rows handled at a time, and the rows that all heights of tiles divide.
CHUNK_BYTES = 96 * 1024
CHUNK_ROWS = 168
INT32_MAX = (1 << 31) - 1


def shifted_tables(weight: Array, rescale: Rescale, limit: float) -> packing.Tables | None:
    """Exact tables for sums of activations that are 128 larger; ``weight`` is int8 [K, C]."""
    wide = weight.astype(np.int64)
    largest = np.abs(wide).sum(axis=0) * (2 * packing.SHIFTED - 1)
    if largest.max(initial=0) > INT32_MAX:
        return None
    multiplier, offset, shift = (part.tolist() for part in rescale.arrays)
    added = (packing.SHIFTED * wide.sum(axis=0)).tolist()
    # In Python's integers: this may leave 64 bits.
    moved = [o - more * m for o, more, m in zip(offset, added, multiplier, strict=True)]
    return packing.exact_tables(multiplier, moved, shift, largest.tolist(), limit)


@frozen(eq=False)
class FusedPart:
    """A part of a convolution made ready for ``kernels.fused.convolve``."""

    part: Part
    matrix: Array
    tables: Array

    def bind(
        self, inputs: Sequence[Array], output: Array, clamp: tuple[int, int], term: Array, scratch: Scratch
    ) -> RowCall:
        """The call that computes the part's share of ``output``; ``term`` is of the residual, ``inputs[1]``."""
        x, part, (images, height, width, depth) = inputs[0], self.part, output.shape
        grid = part.grid((height, width))
        products, channels = part.matrix.shape
        pixels, fours = images * grid[0] * grid[1], -(-products // 4)
        step = x.shape[3] if part.window is None else 4 * fours
        chunk = max(1, min(pixels, CHUNK_BYTES // step))
        chunk = chunk // CHUNK_ROWS * CHUNK_ROWS if CHUNK_ROWS < chunk < pixels else chunk
        row = np.zeros(fused.ROW_LENGTH, dtype=np.int64)
        row[:7] = (address(x), step, pixels, fours, address(self.matrix), address(self.tables), channels)
        row[7:11] = (address(output) + part.channel, depth, *clamp)
        row[11] = address(inputs[1]) + part.channel if len(inputs) > 1 else 0
        row[12], row[29:31] = chunk, grid
        kept = [self.matrix, self.tables, output, *inputs]
        if part.window is not None:
            rows, zeros = scratch.take((chunk * step + packing.MARGIN,), np.int8), np.zeros(16, dtype=np.int8)
            row[13:15] = (address(rows), address(zeros))
            row[16:29] = (*x.shape[1:], *part.channels, *part.window)
            kept += [rows, zeros]
        if part.step_yx != (1, 1):
            room = scratch.take((chunk * channels + packing.MARGIN,), np.int8)
            row[15], row[31:37] = address(room), (height, width, *part.first_yx, *part.step_yx)
            kept.append(room)
        return RowCall(row[None], term[None], tuple(kept))


@frozen(eq=False)
class RowCall:
    """Convolutions in one call of ``kernels.fused.run_rows``, and the arrays behind the addresses they go by."""

    rows: Array
    terms: Array
    kept: tuple[Any, ...]

    def __call__(self) -> None:
        fused.run_rows(self.rows, self.terms)


def joined(calls: Sequence[Run]) -> tuple[Run, ...]:
    """The same calls, neighbouring convolutions made into one call."""
    result: list[Run] = []
    for together, group in itertools.groupby(calls, lambda call: isinstance(call, RowCall)):
        members: list[Any] = list(group)
        if together and len(members) > 1:
            rows = np.concatenate([call.rows for call in members])
            terms = np.concatenate([call.terms for call in members])
            members = [RowCall(rows, terms, tuple(call.kept for call in members))]
        result += members
    return tuple(result)


def address(array: Array) -> int:
    """Where an array without gaps begins."""
    assert array.flags.c_contiguous
    return int(array.ctypes.data)


def fuse_parts(
    parts: Sequence[Part], clamp: tuple[int, int], term: tuple[int, int, int, int] | None, fraction_bits: int
) -> Bind | None:
    """A convolution on the vector kernels, or None where they cannot do it or might not be exact."""
    table = term_table(term)
    limit = packing.RESULT_LIMIT if term is None else packing.TERM_LIMIT
    ready = [_fuse_part(part, limit, fraction_bits) for part in parts]
    found = [part for part in ready if part is not None]
    if table is None or len(found) < len(parts):
        return None

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        calls: list[Run] = []
        for part in found:
            scratch.reset()
            calls.append(part.bind(inputs, output, clamp, table, scratch))
        return calls

    return bind


def _fuse_part(part: Part, limit: float, fraction_bits: int) -> FusedPart | None:
    depth, channels = part.matrix.shape
    strided = part.step_yx != (1, 1)
    if depth == 0 or (part.window is None and depth % 4) or (strided and channels % 16):
        return None
    multiplier, shift, bias = part.rescale
    tables = shifted_tables(part.matrix, Rescale.of(multiplier, shift, bias, fraction_bits), limit)
    if tables is None:
        return None
    return FusedPart(part, packing.pack_matrix(part.matrix), packing.pack_tables(tables))


def term_table(term: tuple[int, int, int, int] | None) -> Array | None:
    """The residual's float64 factor, offset and sign, or None where it might be clamped."""
    if term is None:
        return np.zeros(3)
    multiplier, half, shift, sign = term
    if 128 * multiplier + half >= packing.TERM_LIMIT * 2.0**shift:
        return None
    return np.array([math.ldexp(multiplier, -shift), math.ldexp(half, -shift), float(sign)])


def lower_depthwise(weight: Array, rescale: Rescale, window: Window, clamp: tuple[int, int]) -> Bind | None:
    """A depthwise convolution of ``weight`` int8 [kh * kw, C] on vector kernels, or None as above."""
    tables = shifted_tables(weight, rescale, packing.RESULT_LIMIT)
    if tables is None:
        return None
    taps, channels = weight.shape
    matrix, numbers = packing.pack_depthwise(weight, tables)
    zeros = np.zeros(channels + packing.MARGIN, dtype=np.int8)
    quads = -(-taps // 4)

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        x, (images, height, width, _) = inputs[0], output.shape
        taps = scratch.take((2, 4 * quads), np.int64)
        row = np.zeros(fused.ROW_LENGTH, dtype=np.int64)
        row[:23] = (
            address(x), images, *x.shape[1:3], height, width, channels, *window, quads,
            address(matrix), address(numbers), address(zeros), address(output), *clamp, address(taps),
        )  # fmt: skip
        row[fused.DEPTHWISE] = 1
        return [RowCall(row[None], np.zeros((1, 3)), (matrix, numbers, zeros, x, output, taps))]

    return bind


@functools.cache
def vector_kernels_run() -> bool:
    """Whether this machine runs the vector kernels and they pass their self-test; if not, it is said once."""
    problem = ""
    if not packing.has_instructions():
        problem = "this CPU has no AVX-512 VNNI"
    elif not all(_self_test(*values) for values in ((-128, -128), (-128, 127), (127, 127), (127, -128))):
        problem = "the vector kernels miscount on this machine"
    if problem:
        warnings.warn(f"{problem}: simulating with matrix multiplies, exact but slower", stacklevel=2)
    return not problem


#: Channels of the self-test, which meet every width of block and tile, and its products in a sum.
_CHANNELS = (80, 12, 48, 240)
_DEPTH = 80


def _self_test(activation: int, weight: int) -> bool:
    """Products of constants, whose pairs leave 16 bits, against the definition; factors keep results in range."""
    return all(
        _constant_sums(kind, channels, activation, weight) for channels in _CHANNELS for kind in ("matrix", "depthwise")
    )


def _constant_sums(kind: str, channels: int, activation: int, weight: int) -> bool:
    products = _DEPTH if kind == "matrix" else 9
    multiplier, shift, bias = (np.full(channels, n, dtype=np.int64) for n in ((1 << 30) + (1 << 7), 44, 12345))
    clamp, rescale = (-128, 127), (multiplier, shift, bias)
    if kind == "matrix":
        matrix = np.full((products, channels), weight, dtype=np.int8)
        bind = fuse_parts([Part(matrix, rescale, None, (0, products))], clamp, None, 0)
    else:
        taps = np.full((products, channels), weight, dtype=np.int8)
        bind = lower_depthwise(taps, Rescale.of(*rescale), (3, 3, 1, 1, 1, 1, 0, 0), clamp)
    assert bind is not None
    scratch = Scratch(1 << 16)
    size = (1, 5, 5, products) if kind == "matrix" else (1, 7, 7, channels)
    room = np.full(np.prod(size) + packing.MARGIN, activation, dtype=np.int8)
    found = np.empty((1, 5, 5, channels), dtype=np.int8)
    for call in bind([room[: -packing.MARGIN].reshape(size)], found, scratch):
        call()
    total = products * activation * weight + 12345
    return bool(np.all(found == rescaled(np.asarray(total), int(multiplier[0]), 44, *clamp)))
