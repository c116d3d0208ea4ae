"""What each instruction does to modelled memory, for a batch of frames at once.

Everything here trusts the guards: ranges have been checked.

Legend: ``N`` frames, ``Y X`` tile size, ``I`` input channels, ``O`` output channels, ``kh kw`` kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch

from carkp_bpu.hbm import isa
from carkp_bpu.hbm.footprint import input_spans, pool_window, resize_sampling
from carkp_bpu.simulator import machine_arithmetic as loops
from carkp_bpu.simulator.machine_operands import (
    NUMPY,
    Bytes,
    IntArray,
    Operand,
    Target,
    block,
    for_frames,
    gather,
    gather_bytes,
    owned,
    scatter,
    typed,
    view,
)
from carkp_core.ir import arithmetic

Reads: TypeAlias = dict[str, Operand]


def conv(instruction: isa.Conv, reads: Reads, target: Target) -> None:
    """A tile of a convolution."""
    weights, bias, multiplier, shift = kernel_parameters(instruction, reads)
    per_group, filters = weights.shape[2:]
    if instruction.groups == filters and per_group == 1 and instruction.input.dtype == 1:
        acc = _depthwise(instruction, reads["input"], weights[:, :, 0])
    else:
        acc = _patches_product(instruction, reads["input"], weights)
    acc = for_frames(acc, target)
    memory, rows, start, pitch = _map_target(instruction.output, instruction.rows, instruction.columns, target.memory)
    lo, hi = instruction.lo, instruction.hi
    if instruction.residual is None:
        loops.rescale_to_map(acc, bias, multiplier, shift, lo, hi, memory, rows, start, pitch)
        return
    other = instruction.residual
    residual = owned(for_frames(gather(reads["residual"], other.map.dtype), target))
    term = (other.multiplier, other.shift, -1 if other.negative else 1)
    loops.rescale_add_to_map(acc, bias, multiplier, shift, lo, hi, memory, rows, start, pitch, residual, term)


def deconv(instruction: isa.Deconv, reads: Reads, target: Target) -> None:
    """A tile of a transposed convolution: products with every kernel position, then their sum."""
    weights, bias, multiplier, shift = kernel_parameters(instruction, reads)
    (kh, kw), channels = instruction.kernel_hw, instruction.input.channels
    groups, filters = instruction.groups, instruction.output.channels
    weights = weights.reshape(kh * kw, channels, filters // groups)
    rows, columns = input_spans(instruction)
    size = (instruction.rows[1] - instruction.rows[0], instruction.columns[1] - instruction.columns[0])
    acc = np.zeros((len(reads["input"].memory), *size, filters), dtype=np.int64)
    if rows[0] < rows[1] and columns[0] < columns[1]:
        x = gather(reads["input"], instruction.input.dtype)
        n, height, width, _ = x.shape
        step_in, step_out = channels // groups, filters // groups
        for group in range(groups):
            own = slice(group * step_in, (group + 1) * step_in)
            matrix = weights[:, own].transpose(1, 0, 2).reshape(step_in, -1)
            products = _matmul(x[..., own].reshape(-1, step_in), matrix).reshape(n, height, width, kh, kw, step_out)
            part = np.empty((n, *size, step_out), dtype=products.dtype)
            place = (instruction.rows[0], instruction.columns[0])
            loops.scatter_columns(
                products, rows[0], columns[0], *place, instruction.stride_hw, instruction.padding_tl, part
            )
            if groups == 1:
                acc = part
            else:
                acc[..., group * step_out : (group + 1) * step_out] = part
    acc = for_frames(acc, target)
    memory, offsets, start, pitch = _map_target(
        instruction.output, instruction.rows, instruction.columns, target.memory
    )
    lo, hi = instruction.lo, instruction.hi
    loops.rescale_to_map(acc, bias, multiplier, shift, lo, hi, memory, offsets, start, pitch)


def pool(instruction: isa.Pool, reads: Reads, target: Target) -> None:
    """A tile of a pool, or a part of one."""
    source = instruction.input
    size = (instruction.rows[1] - instruction.rows[0], instruction.columns[1] - instruction.columns[0])
    shape = (len(reads["input"].memory), *size, source.channels)
    lowest = np.iinfo(NUMPY[source.dtype]).min if instruction.mode == 0 else 0
    acc = np.full(shape, lowest, dtype=np.int32)
    if not instruction.first:
        before = block(reads["partial"], np.dtype("<i4"), every_frame=True).reshape(-1, *shape[1:])
        acc = owned(np.broadcast_to(before, (max(len(before), len(acc)), *shape[1:])))
    memory = typed(reads["input"].memory, source.dtype)
    rows, columns = _tap_rows(instruction), _tap_positions(instruction, 1)
    start = _first_pixel(source, reads["input"])
    walk = loops.window_sum if instruction.mode else loops.window_maximum
    walk(memory, rows, start, source.pixel_pitch // source.dtype, columns, source.width, acc)
    if not instruction.last:
        scatter(target, acc.reshape(len(acc), -1), 4)
        return
    result: IntArray = acc
    if instruction.mode:
        multiplier, shift = _count_rescale(instruction, reads["table"])
        result = arithmetic.rescale(acc, multiplier[..., None], shift[..., None], instruction.lo, instruction.hi)
    scatter(target, result, instruction.output.dtype)


def resize(instruction: isa.Resize, reads: Reads, target: Target) -> None:
    """A tile of a resize."""
    rows, columns = input_spans(instruction)
    x = gather(reads["input"], instruction.input.dtype).astype(np.int64)
    source = instruction.input
    lower_y, rest_y = _samples(instruction, 0)
    lower_x, rest_x = _samples(instruction, 1)

    def pick(ys: IntArray, xs: IntArray) -> IntArray:
        near_y = ys.clip(0, source.height - 1) - rows[0]
        near_x = xs.clip(0, source.width - 1) - columns[0]
        return x[:, near_y][:, :, near_x]

    if not instruction.mode:
        scatter(target, pick(lower_y, lower_x), instruction.output.dtype)
        return
    n_y, n_x = instruction.numerator_hw
    wy, wx = rest_y[:, None, None], rest_x[:, None]
    acc = (pick(lower_y, lower_x) * (n_x - wx) + pick(lower_y, lower_x + 1) * wx) * (n_y - wy)
    acc += (pick(lower_y + 1, lower_x) * (n_x - wx) + pick(lower_y + 1, lower_x + 1) * wx) * wy
    result = arithmetic.rescale(acc, instruction.multiplier, instruction.shift, instruction.lo, instruction.hi)
    scatter(target, result, instruction.output.dtype)


def add(instruction: isa.Add, reads: Reads, target: Target) -> None:
    """Sum of terms."""
    total: Any = 0
    for index, term in enumerate(instruction.terms):
        value = arithmetic.rescale_term(gather(reads[f"term{index}"], term.view.dtype), term.multiplier, term.shift)
        total = total - value if term.negative else total + value
    scatter(target, arithmetic.finish_add(total, instruction.lo, instruction.hi), instruction.output.dtype)


def mul(instruction: isa.Mul, reads: Reads, target: Target) -> None:
    """Product of two operands."""
    left = gather(reads["left"], instruction.left.dtype).astype(np.int64)
    product = left * gather(reads["right"], instruction.right.dtype)
    result = arithmetic.rescale(product, instruction.multiplier, instruction.shift, instruction.lo, instruction.hi)
    scatter(target, result, instruction.output.dtype)


def rescale(instruction: isa.Rescale, reads: Reads, target: Target) -> None:
    """One operand to another scale."""
    value = gather(reads["input"], instruction.input.dtype)
    result = arithmetic.rescale(value, instruction.multiplier, instruction.shift, instruction.lo, instruction.hi)
    scatter(target, result, instruction.output.dtype)


def clamp(instruction: isa.Clamp, reads: Reads, target: Target) -> None:
    """One operand, limited."""
    value = gather(reads["input"], instruction.input.dtype).astype(np.int64)
    scatter(target, np.clip(value, instruction.lo, instruction.hi), instruction.output.dtype)


def table(instruction: isa.Table, reads: Reads, target: Target) -> None:
    """Look-up of one operand."""
    value = gather(reads["input"], instruction.input.dtype)
    tables = gather_bytes(reads["table"])[0].view(NUMPY[instruction.entry_dtype])
    if instruction.entries == 513:
        result = arithmetic.table_int16(value, tables[0])
    else:
        channel = np.arange(value.shape[-1]) if instruction.channel_stride else 0
        result = tables[channel, value.astype(np.int64) + 128]
    scatter(target, result, instruction.output.dtype)


def copy(instruction: isa.Copy, reads: Reads, target: Target) -> None:
    """Elements moved."""
    scatter(target, gather(reads["input"], instruction.input.dtype), instruction.output.dtype)


def fill(instruction: isa.Fill, reads: Reads, target: Target) -> None:
    """One value everywhere."""
    scatter(target, np.asarray(instruction.value), instruction.output.dtype)


def move(instruction: isa.Load | isa.Store, reads: Reads, target: Target) -> None:
    """Bytes moved between the memories."""
    source = reads["source"]
    for taken, place in zip(source.access.boxes, target.access.boxes, strict=True):
        view(target.memory, place, target.origin)[...] = view(source.memory, taken, source.origin)


KERNELS: dict[type, Callable[[Any, Reads, Target], None]] = {
    isa.Load: move,
    isa.Store: move,
    isa.Conv: conv,
    isa.Deconv: deconv,
    isa.Pool: pool,
    isa.Resize: resize,
    isa.Add: add,
    isa.Mul: mul,
    isa.Rescale: rescale,
    isa.Clamp: clamp,
    isa.Table: table,
    isa.Copy: copy,
    isa.Fill: fill,
}


def _depthwise(instruction: isa.Conv, operand: Operand, weight: IntArray) -> IntArray:
    source, memory = instruction.input, operand.memory
    size = (instruction.rows[1] - instruction.rows[0], instruction.columns[1] - instruction.columns[0])
    acc = np.empty((len(memory), *size, source.channels), dtype=np.int32)
    rows, columns = _tap_rows(instruction), _tap_positions(instruction, 1)
    start = _first_pixel(source, operand)
    elements = typed(memory, source.dtype)
    loops.depthwise(
        elements, rows, start, source.pixel_pitch, columns, source.width, owned(weight.astype(np.int16)), acc
    )
    return acc


def _patches_product(instruction: isa.Conv, operand: Operand, weights: IntArray) -> IntArray:
    """Sums [N, Y, X, O] of a convolution as a product of patches and weights."""
    kh, kw, per_group, filters = weights.shape
    padded = _padded_input(instruction, operand)
    size = (instruction.rows[1] - instruction.rows[0], instruction.columns[1] - instruction.columns[0])
    n, sy, sx, sc = padded.strides
    step_h, step_w = instruction.stride_hw
    strides = (n, sy * step_h, sx * step_w, sy * instruction.dilation_hw[0], sx * instruction.dilation_hw[1], sc)
    shape = (len(padded), *size, kh, kw, padded.shape[3])
    patches = np.lib.stride_tricks.as_strided(padded, shape, strides, writeable=False)
    own = filters // instruction.groups
    parts = []
    for group in range(instruction.groups):
        columns = patches[..., group * per_group : (group + 1) * per_group].reshape(-1, kh * kw * per_group)
        parts.append(_matmul(columns, weights[..., group * own : (group + 1) * own].reshape(-1, own)))
    acc = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return acc.reshape(len(padded), *size, filters)


def _padded_input(instruction: isa.Conv, operand: Operand) -> IntArray:
    """The input rows and columns that the tile's windows cover, zeros on padding."""
    source = instruction.input
    spans, wanted = input_spans(instruction), []
    for axis, span in enumerate((instruction.rows, instruction.columns)):
        begin = span[0] * instruction.stride_hw[axis] - instruction.padding_tl[axis]
        length = (span[1] - span[0] - 1) * instruction.stride_hw[axis] + 1
        length += instruction.dilation_hw[axis] * (instruction.kernel_hw[axis] - 1)
        wanted.append((begin, begin + length))
    if tuple(wanted) == spans:
        return gather(operand, source.dtype)
    lengths = [end - begin for begin, end in wanted]
    padded = np.zeros((len(operand.memory), *lengths, source.channels), dtype=NUMPY[source.dtype])
    if all(begin < end for begin, end in spans):
        inside = tuple(slice(s[0] - w[0], s[1] - w[0]) for s, w in zip(spans, wanted, strict=True))
        padded[:, inside[0], inside[1]] = gather(operand, source.dtype)
    return padded


def _matmul(left: IntArray, right: IntArray) -> IntArray:
    """[M, K] times [K, O]: int32 by torch's int8 product, else int64 by way of float64, exact below 2**53."""
    # torch's product of matrices with K = 1 is wrong (2.13, CPU).
    if left.dtype == np.int8 and left.shape[1] > 1 and _int8_product_is_exact():
        return _int8_product(left, right)
    return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)


def _int8_product(left: IntArray, right: IntArray) -> IntArray:
    # Copies: torch takes no views of read-only memory, and wants the second factor column by column.
    return torch._int_mm(torch.from_numpy(owned(left)), torch.from_numpy(right.T.copy()).t()).numpy()


@functools.cache
def _int8_product_is_exact() -> bool:
    """Whether this CPU multiplies int8 matrices without saturating in between (some add pairs in 16 bits)."""
    left = np.full((4, 64), -128, dtype=np.int8)
    right = np.where(np.arange(64 * 8).reshape(64, 8) % 3 < 2, -127, 127).astype(np.int8)
    try:
        return bool((_int8_product(left, right) == left.astype(np.int64) @ right.astype(np.int64)).all())
    except RuntimeError:
        return False


def _tap_positions(instruction: isa.Conv | isa.Pool, axis: int) -> IntArray:
    """Input position of every output and tap along an axis, int64 [outputs, taps], unclipped."""
    begin, end = (instruction.rows, instruction.columns)[axis]
    taps = (0, instruction.kernel_hw[axis])
    if isinstance(instruction, isa.Pool):
        taps = pool_window(instruction, axis).taps
    places = np.arange(begin, end)[:, None] * instruction.stride_hw[axis] - instruction.padding_tl[axis]
    return places + np.arange(*taps) * instruction.dilation_hw[axis]


def _first_pixel(feature_map: isa.FeatureMap, operand: Operand) -> int:
    """Element offset of column 0 within a row, for memory that begins at the operand's origin."""
    return -(feature_map.first_column * feature_map.pixel_pitch + operand.origin) // feature_map.dtype


def _tap_rows(instruction: isa.Conv | isa.Pool) -> IntArray:
    """Element offset of the input row of every output row and tap; -1 on padding."""
    source = instruction.input
    places = _tap_positions(instruction, 0)
    inside = (places >= 0) & (places < source.height)
    return np.where(inside, _row_offsets(source, places), -1)


def _row_offsets(feature_map: isa.FeatureMap, rows: IntArray) -> IntArray:
    """Element offsets of a map's rows."""
    slots = (rows - feature_map.first_row) % feature_map.ring_rows
    return (feature_map.address + slots * feature_map.row_pitch) // feature_map.dtype


def _map_target(
    feature_map: isa.FeatureMap, rows: isa.Pair, columns: isa.Pair, memory: Bytes
) -> tuple[IntArray, IntArray, int, int]:
    """Typed memory, row offsets, offset of the first column, pixel pitch; all in elements."""
    pitch = feature_map.pixel_pitch // feature_map.dtype
    start = (columns[0] - feature_map.first_column) * pitch
    return typed(memory, feature_map.dtype), _row_offsets(feature_map, np.arange(*rows)), start, pitch


def kernel_parameters(
    instruction: isa.Conv | isa.Deconv, reads: Reads
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Weights int8 [kh, kw, I / groups, O], of a transposed convolution [kh, kw, I, O / groups]; bias, multiplier and
    shift int64 [O]."""
    channels, depth, groups = instruction.output.channels, instruction.input.channels, instruction.groups
    shape = (depth // groups, channels) if isinstance(instruction, isa.Conv) else (depth, channels // groups)
    weights = block(reads["weights"], np.dtype("int8")).reshape(*instruction.kernel_hw, *shape)
    raw = block(reads["params"], np.dtype("uint8"))
    words = raw[: 8 * channels].view("<i4").astype(np.int64)
    return weights, words[:channels], words[channels:], raw[8 * channels :].astype(np.int64)


def _count_rescale(instruction: isa.Pool, operand: Operand) -> tuple[IntArray, IntArray]:
    """Multiplier and shift [Y, X] of each window's count."""
    raw, entries = block(operand, np.dtype("uint8")), instruction.entries
    words = raw[: 8 * entries].view("<u4").astype(np.int64)
    top, left, bottom, right = instruction.counted
    sides = []
    for axis, bounds in enumerate(((top, bottom), (left, right))):
        # The divisor counts the whole window, also when this instruction sums only a part of it.
        begin, end = (instruction.rows, instruction.columns)[axis]
        first = np.arange(begin, end)[:, None] * instruction.stride_hw[axis]
        places = first + np.arange(instruction.kernel_hw[axis]) * instruction.dilation_hw[axis]
        sides.append(((places >= bounds[0]) & (places < bounds[1])).sum(axis=1))
    index = np.searchsorted(words[:entries], sides[0][:, None] * sides[1])
    return words[entries:][index], raw[8 * entries :].astype(np.int64)[index]


def _samples(instruction: isa.Resize, axis: int) -> tuple[IntArray, IntArray]:
    """Lower input position and rest (in units of 1 / numerator) of each output; nearest: rounded, no rest."""
    sampling = resize_sampling(instruction, axis)
    begin, end = (instruction.rows, instruction.columns)[axis]
    places = np.arange(begin, end, dtype=np.int64) * sampling.denominator + sampling.offset
    lower = np.array([sampling.first(position) for position in range(begin, end)], dtype=np.int64)
    return lower, places - lower * sampling.numerator
