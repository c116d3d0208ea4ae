"""Convolutions: matrix products over gathered windows, transposed ones phase by phase, depthwise ones directly.

A transposed convolution with stride s computes the outputs Y = s t + c of one residue c from the kernel's rows
i = p, p + s, p + 2 s, ... alone, where p = (Y + top) mod s::

    kernel 4, stride 2     i: 0 1 2 3      even phase uses 0 2, odd phase uses 1 3

so each phase is a plain convolution of stride 1 with a flipped part of the kernel, written to every s-th output.

Legend: ``O`` output channels, ``G`` input channels of a group, ``K = kh kw G``, ``Y X`` output size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from carkp_bpu.simulator.gemm import Factor, exact_int8, later, prepare
from carkp_bpu.simulator.kernels import depthwise, gather, requantize
from carkp_bpu.simulator.lowering import fused_conv
from carkp_bpu.simulator.lowering.base import Array, Bind, Request, Rescale, Run, Scratch
from carkp_bpu.simulator.lowering.part import Part
from carkp_core.ir import operators as ops

#: Bytes of windows and accumulators handled at a time, so that they stay in the second-level cache.
CHUNK_BYTES = 256 * 1024
FRACTION_BITS = 15
#: Groups narrower than this many output channels are joined, with zeros between them.
GROUP_CHANNELS = 16
INT32_MAX = (1 << 31) - 1


@frozen(eq=False)
class Product:
    """A part with its weight made ready for the matrix multiply."""

    part: Part
    factor: Factor
    rescale: Rescale

    @classmethod
    def of(cls, part: Part, request: Request, fraction_bits: int) -> Product:
        """Choose the route, and add to the bias what it asks for."""
        exact = exact_int8() if request.int8_multiply is None else request.int8_multiply
        factor = prepare(part.matrix, request.inputs[0].dtype, exact)
        multiplier, shift, bias = part.rescale
        return cls(part, factor, Rescale.of(multiplier, shift, bias.astype(np.int64) + factor.extra, fraction_bits))


@frozen(eq=False)
class Convolution:
    """A convolution as products, bound to buffers by ``bind``."""

    products: tuple[Product, ...]
    lo: int
    hi: int
    #: The residual's (multiplier, rounding, shift, sign).
    term: tuple[int, int, int, int] | None = None

    def bind(self, inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        """The calls that compute ``output`` [n, Y, X, O] from ``inputs[0]`` [n, H, W, I]."""
        calls: list[Run] = []
        for product in self.products:
            scratch.reset()
            calls += self._bind_product(product, inputs, output, scratch)
        return calls

    def _bind_product(
        self, product: Product, inputs: Sequence[Array], output: Array, scratch: Scratch
    ) -> Iterator[Run]:
        grid = product.part.grid((output.shape[1], output.shape[2]))
        pixels = output.shape[0] * grid[0] * grid[1]
        gathered = product.factor.depth * inputs[0].itemsize if product.part.window else 0
        per_pixel = product.factor.bytes_per_row + gathered
        chunk = max(1, min(pixels, CHUNK_BYTES // max(1, per_pixel)))
        place = _place(product.part, output, grid)
        for first in range(0, pixels, chunk):
            scratch.reset()
            count = min(chunk, pixels - first)
            rows, calls = _bind_rows(product.part, inputs[0], grid, (first, count), scratch)
            multiply, acc = product.factor.bind(rows, scratch)
            yield from (*calls, multiply, self._bind_finish(product, acc, (first, count), place, inputs, output))

    def _bind_finish(
        self, product: Product, acc: Array, pixels: tuple[int, int], place: Any, inputs: Sequence[Array], output: Array
    ) -> Run:
        first, count = pixels
        if place is not None:
            arguments = (acc, pixels, place, product.rescale.arrays, self.lo, self.hi, output.reshape(-1))
            return later(requantize.requantize_rows, *arguments)
        depth = output.shape[3]
        span = slice(first * depth, (first + count) * depth)
        target, tables = output.reshape(-1)[span], product.rescale.repeated().arrays
        if self.term is None:
            return later(requantize.requantize, acc, target.size, *tables, self.lo, self.hi, target)
        other = inputs[1].reshape(-1)[span]
        added = (other, self.term, self.lo, self.hi, target)
        return later(requantize.requantize_add, acc, target.size, tables, *added)


def _place(part: Part, output: Array, grid: tuple[int, int]) -> tuple[Array, int, int] | None:
    """Where the product's pixels stand in the output, or None when they fill it from end to end."""
    images, height, width, depth = output.shape
    if part.matrix.shape[1] == depth and part.step_yx == (1, 1):
        return None
    rows = np.arange(grid[0], dtype=np.int64) * part.step_yx[0] + part.first_yx[0]
    lines = np.arange(images, dtype=np.int64)[:, None] * height + rows
    starts = (lines * width + part.first_yx[1]) * depth + part.channel
    return starts.reshape(-1), grid[1], part.step_yx[1] * depth


def _bind_rows(
    part: Part, x: Array, grid: tuple[int, int], pixels: tuple[int, int], scratch: Scratch
) -> tuple[Array, list[Run]]:
    """The matrix rows of some output pixels: a view of the input, or room that a call fills."""
    first, count = pixels
    if part.window is None:
        return x.reshape(-1, x.shape[3])[first : first + count], []
    rows = scratch.take((count, part.matrix.shape[0]), x.dtype)
    arguments = (x.reshape(-1), x.shape[1:], part.channels, part.window, grid, pixels, rows.reshape(-1))
    return rows, [later(gather.gather_windows, *arguments)]


def lower_conv2d(request: Request) -> Bind | None:
    """A convolution, or None where only the reference executor knows how."""
    op: ops.Conv2d = request.op
    if request.inputs[0].dtype not in ("int8", "int16"):
        return None
    if op.depthwise:
        return _lower_depthwise(request)
    return _lower_parts(request, conv2d_parts(op))


def conv2d_parts(op: ops.Conv2d) -> list[Part]:
    """A convolution that is not depthwise, group by group; narrow groups are joined."""
    weight, groups = _join_groups(op.weight, op.groups)
    out_channels, group, kh, kw = weight.shape
    per_group = out_channels // groups
    window = (kh, kw, *op.stride_hw, *op.dilation_hw, *op.padding_tlbr[:2])
    pointwise = groups == 1 and window == (1, 1, 1, 1, *op.dilation_hw, 0, 0) and not any(op.padding_tlbr)
    parts = []
    for g in range(groups):
        outputs = slice(g * per_group, (g + 1) * per_group)
        matrix = weight[outputs].transpose(2, 3, 1, 0).reshape(-1, per_group)
        rescale = (op.multiplier[outputs], op.shift[outputs], op.bias[outputs])
        parts.append(Part(matrix, rescale, None if pointwise else window, (g * group, group), g * per_group))
    return parts


def _lower_parts(request: Request, parts: Sequence[Part]) -> Bind | None:
    """On the vector kernels if all parts can go there, else by matrix multiply and kernels around it."""
    op = request.op
    residual = getattr(op, "residual", None)
    term, bits = (term_numbers(residual), FRACTION_BITS) if residual else (None, 0)
    if request.on_vectors:
        bind = fused_conv.fuse_parts(parts, (op.lo, op.hi), term, bits)
        if bind is not None:
            return bind
    if term is not None and len(parts) > 1:
        return None
    return Convolution(tuple(Product.of(part, request, bits) for part in parts), op.lo, op.hi, term).bind


def term_numbers(term: ops.Term) -> tuple[int, int, int, int]:
    """An add's term as kernels take it: (multiplier, rounding, shift, sign), 15 bits kept."""
    shift = term.shift - FRACTION_BITS
    return term.multiplier, 1 << (shift - 1), shift, -1 if term.negative else 1


def _join_groups(weight: Array, groups: int) -> tuple[Array, int]:
    """Neighbouring narrow groups as one with a block-diagonal weight."""
    out_channels, group, kh, kw = weight.shape
    per_group = out_channels // groups
    factor = 1
    while per_group * factor < GROUP_CHANNELS and (groups // factor) % 2 == 0:
        factor *= 2
    if factor == 1:
        return weight, groups
    joined = np.zeros((out_channels, group * factor, kh, kw), dtype=weight.dtype)
    for g in range(groups):
        member = g % factor
        part = slice(g * per_group, (g + 1) * per_group)
        joined[part, member * group : (member + 1) * group] = weight[part]
    return joined, groups // factor


def lower_conv_transpose2d(request: Request) -> Bind | None:
    """A transposed convolution, phase by phase and group by group."""
    if request.inputs[0].dtype not in ("int8", "int16"):
        return None
    return _lower_parts(request, transposed_parts(request.op, request.output.shape[2:]))


def transposed_parts(op: ops.ConvTranspose2d, out_hw: tuple[int, ...]) -> list[Part]:
    """A transposed convolution with output size ``out_hw``, phase by phase and group by group."""
    in_channels, per_group, _, _ = op.weight.shape
    group = in_channels // op.groups
    parts = []
    for g, residue_y, residue_x in itertools.product(range(op.groups), *map(range, op.stride_hw)):
        if residue_y >= out_hw[0] or residue_x >= out_hw[1]:
            continue
        rows, row_pad = _phase(op, 0, residue_y)
        columns, column_pad = _phase(op, 1, residue_x)
        weight = op.weight[g * group : (g + 1) * group][:, :, rows][:, :, :, columns]
        matrix = weight.transpose(2, 3, 0, 1).reshape(-1, per_group)
        outputs = slice(g * per_group, (g + 1) * per_group)
        rescale = (op.multiplier[outputs], op.shift[outputs], op.bias[outputs])
        window = (len(rows), len(columns), 1, 1, 1, 1, row_pad, column_pad)
        place = (g * per_group, (residue_y, residue_x), op.stride_hw)
        parts.append(Part(matrix, rescale, window, (g * group, group), *place))
    return parts


def _phase(op: ops.ConvTranspose2d, axis: int, residue: int) -> tuple[list[int], int]:
    """The kernel rows (or columns) of a phase, last first, and how far before output t its first input lies."""
    stride, kernel, before = op.stride_hw[axis], op.weight.shape[2 + axis], op.padding_tlbr[axis]
    first = (residue + before) % stride
    taps = list(range(first, kernel, stride))[::-1]
    # Output t of the phase meets kernel row first + stride * a at input (residue + before) // stride + t - a.
    return taps, len(taps) - 1 - (residue + before) // stride


def _lower_depthwise(request: Request) -> Bind | None:
    op: ops.Conv2d = request.op
    channels, _, kh, kw = op.weight.shape
    window = (kh, kw, *op.stride_hw, *op.dilation_hw, *op.padding_tlbr[:2])
    weight = np.ascontiguousarray(op.weight.reshape(channels, kh * kw).T.astype(np.int16))
    largest = int(np.abs(weight.astype(np.int64)).sum(axis=0).max()) * -int(np.iinfo(request.inputs[0].dtype).min)
    acc_dtype = np.dtype(np.int32 if largest <= INT32_MAX else np.int64)
    residual = op.residual
    rescale = Rescale.of(op.multiplier, op.shift, op.bias, FRACTION_BITS if residual else 0)
    if request.on_vectors and residual is None:
        fused = fused_conv.lower_depthwise(weight.astype(np.int8), rescale, window, (op.lo, op.hi))
        if fused is not None:
            return fused

    def bind(inputs: Sequence[Array], output: Array, scratch: Scratch) -> list[Run]:
        x, (n, out_h, out_w, _) = inputs[0], output.shape
        sizes = (n, *x.shape[1:3], out_h, out_w, channels)
        if residual is None:
            acc = scratch.take((channels,), acc_dtype)
            arguments = (x.reshape(-1), sizes, weight, window, rescale.arrays, (op.lo, op.hi), acc, output.reshape(-1))
            return [later(depthwise.depthwise, *arguments)]
        calls: list[Run] = []
        tables, row = rescale.repeated().arrays, out_w * channels
        chunk = max(1, CHUNK_BYTES // (row * acc_dtype.itemsize))
        for first in range(0, n * out_h, chunk):
            scratch.reset()
            count = min(chunk, n * out_h - first)
            acc = scratch.take((count * row,), acc_dtype)
            span = slice(first * row, (first + count) * row)
            other, target = inputs[1].reshape(-1)[span], output.reshape(-1)[span]
            sums = (x.reshape(-1), sizes, weight, window, (first, count), acc)
            finish = (acc, acc.size, tables, other, term_numbers(residual), op.lo, op.hi, target)
            calls.append(later(depthwise.depthwise_sums, *sums))
            calls.append(later(requantize.requantize_add, *finish))
        return calls

    return bind
