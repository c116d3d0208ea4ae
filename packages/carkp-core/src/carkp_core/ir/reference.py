"""The reference executor: plain numpy, slow, obviously right. Every backend must equal it bit for bit.

Legend: ``N`` batch, ``I`` input channels, ``O`` output channels, ``H W`` input size, ``Y X`` output size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from carkp_core.errors import GraphError
from carkp_core.ir import arithmetic
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, Node
from carkp_core.ir.inputs import check_inputs

IntArray = npt.NDArray[Any]
Inputs = tuple[IntArray, ...]


def execute(graph: Graph, inputs: Mapping[str, IntArray], taps: Sequence[str] = ()) -> dict[str, IntArray]:
    """Run a graph.

    Parameters
    ----------
    graph:
        The integer model.
    inputs:
        One array for each input: the type's dtype and shape, any N.
    taps:
        Further tensors to return.

    Returns
    -------
    dict
        Outputs and taps by name.

    Raises
    ------
    GraphError
        When an input is missing or has another type, layout or shape, or a node cannot be executed.
    """
    values, _ = check_inputs(graph, inputs)
    for node in graph.nodes:
        values[node.name] = execute_node(node, tuple(values[name] for name in node.inputs))
    unknown = [name for name in taps if name not in values]
    if unknown:
        raise GraphError(f"graph {graph.name!r} has no tensor {unknown[0]!r}")
    return {name: values[name] for name in (*graph.outputs, *taps)}


def execute_node(node: Node, inputs: Inputs) -> IntArray:
    """One node's output."""
    kernel = _KERNELS.get(type(node.op))
    result = kernel(node.op, inputs) if kernel else node.op.execute(inputs)
    return result.astype(node.type.dtype)


def conv2d_accumulator(op: ops.Conv2d, x: IntArray) -> IntArray:
    """Sum of products plus bias, int64 [N, O, Y, X].

    The products of one kernel position are summed by a float64 matrix product, which is exact: each is below
    2**22 (int16 times int8), so 2**31 of them stay below 2**53.
    """
    out_channels, group_channels, kh, kw = op.weight.shape
    _, _, out_h, out_w = _convolved_shape(op, x.shape)
    n, groups, per_group = x.shape[0], op.groups, out_channels // op.groups
    padded = _pad(x.astype(np.float64), op.padding_tlbr, 0)
    weight = op.weight.astype(np.float64).reshape(groups, per_group, group_channels, kh, kw)
    acc = np.zeros((n, groups, per_group, out_h * out_w), dtype=np.float64)
    for i in range(kh):
        for j in range(kw):
            window = _strided(padded, i * op.dilation_hw[0], j * op.dilation_hw[1], op.stride_hw, (out_h, out_w))
            acc += weight[:, :, :, i, j] @ window.reshape(n, groups, group_channels, out_h * out_w)
    return acc.reshape(n, out_channels, out_h, out_w).astype(np.int64) + _per_channel(op.bias)


def conv_transpose2d_accumulator(op: ops.ConvTranspose2d, x: IntArray) -> IntArray:
    """Sum of products plus bias, int64 [N, O, Y, X]: each input element adds a scaled kernel to the output.

    In float64, which is exact as in ``conv2d_accumulator``.
    """
    in_channels, group_out, kh, kw = op.weight.shape
    n, _, height, width = x.shape
    top, left, _, _ = op.padding_tlbr
    _, out_channels, out_h, out_w = op.infer_shape((x.shape,))
    groups, per_group = op.groups, in_channels // op.groups
    full_h = max((height - 1) * op.stride_hw[0] + kh, top + out_h)
    full_w = max((width - 1) * op.stride_hw[1] + kw, left + out_w)
    full = np.zeros((n, out_channels, full_h, full_w), dtype=np.float64)
    columns = x.astype(np.float64).reshape(n, groups, per_group, height * width)
    weight = op.weight.astype(np.float64).reshape(groups, per_group, group_out, kh, kw)
    for i in range(kh):
        for j in range(kw):
            part = weight[:, :, :, i, j].swapaxes(1, 2) @ columns
            _strided(full, i, j, op.stride_hw, (height, width))[...] += part.reshape(n, out_channels, height, width)
    return full[:, :, top : top + out_h, left : left + out_w].astype(np.int64) + _per_channel(op.bias)


def _conv2d(op: ops.Conv2d, inputs: Inputs) -> IntArray:
    acc = conv2d_accumulator(op, inputs[0])
    multiplier, shift = _per_channel(op.multiplier), _per_channel(op.shift)
    if op.residual is None:
        return arithmetic.rescale(acc, multiplier, shift, op.lo, op.hi)
    total = arithmetic.rescale_term(acc, multiplier, shift) + _term(op.residual, inputs[1])
    return arithmetic.finish_add(total, op.lo, op.hi)


def _conv_transpose2d(op: ops.ConvTranspose2d, inputs: Inputs) -> IntArray:
    acc = conv_transpose2d_accumulator(op, inputs[0])
    return arithmetic.rescale(acc, _per_channel(op.multiplier), _per_channel(op.shift), op.lo, op.hi)


def _add(op: ops.Add, inputs: Inputs) -> IntArray:
    total: Any = 0
    for term, value in zip(op.terms, inputs, strict=True):
        total = total + _term(term, value)
    return arithmetic.finish_add(total, op.lo, op.hi)


def _mul(op: ops.Mul, inputs: Inputs) -> IntArray:
    product = inputs[0].astype(np.int64) * inputs[1].astype(np.int64)
    return arithmetic.rescale(product, op.multiplier, op.shift, op.lo, op.hi)


def _constant(op: ops.Constant, inputs: Inputs) -> IntArray:
    return op.value


def _rescale(op: ops.Rescale, inputs: Inputs) -> IntArray:
    return arithmetic.rescale(inputs[0], op.multiplier, op.shift, op.lo, op.hi)


def _concat(op: ops.Concat, inputs: Inputs) -> IntArray:
    pairs = zip(op.terms, inputs, strict=True)
    parts = [arithmetic.rescale(value, term.multiplier, term.shift, op.lo, op.hi) for term, value in pairs]
    images = max(len(part) for part in parts)  # a constant has one image for all
    return np.concatenate([np.broadcast_to(part, (images, *part.shape[1:])) for part in parts], axis=op.axis)


def _slice(op: ops.Slice, inputs: Inputs) -> IntArray:
    index = [slice(None)] * inputs[0].ndim
    index[op.axis] = slice(op.start, op.stop, op.step)
    return inputs[0][tuple(index)]


def _pad_op(op: ops.Pad, inputs: Inputs) -> IntArray:
    return _pad(inputs[0], op.padding_tlbr, op.value)


def _max_pool(op: ops.MaxPool, inputs: Inputs) -> IntArray:
    x = inputs[0]
    _, _, out_h, out_w = op.infer_shape((x.shape,))
    lowest = np.iinfo(x.dtype).min
    padded = _pad(x, op.padding_tlbr, lowest)
    result = np.full((*x.shape[:2], out_h, out_w), lowest, dtype=x.dtype)
    for i in range(op.kernel_hw[0]):
        for j in range(op.kernel_hw[1]):
            window = _strided(padded, i * op.dilation_hw[0], j * op.dilation_hw[1], op.stride_hw, (out_h, out_w))
            result = np.maximum(result, window)
    return result


def _avg_pool(op: ops.AvgPool, inputs: Inputs) -> IntArray:
    x = inputs[0]
    size = op.infer_shape((x.shape,))[2:]
    total = _window_sum(_pad(x.astype(np.int64), op.padding_tlbr, 0), op, size)
    count = counted_positions(op, x.shape[2:])
    return arithmetic.rescale(total, op.multiplier[count], op.shift[count], op.lo, op.hi)


def counted_positions(op: ops.AvgPool, size_hw: tuple[int, ...]) -> IntArray:
    """How many positions each window of an average pool counts in its divisor, int64 [1, 1, Y, X]."""
    size = op.infer_shape(((1, 1, *size_hw),))[2:]
    return _window_sum(_counted(op, size_hw), op, size)


def _counted(op: ops.AvgPool, size_hw: tuple[int, ...]) -> IntArray:
    """1 where a position of the padded input counts in the divisor, int64 [1, 1, padded H, padded W]."""
    top, left, bottom, right = op.padding_tlbr
    height, width = size_hw
    counted = np.zeros((1, 1, height + top + bottom, width + left + right), dtype=np.int64)
    if op.count_include_pad:
        counted[:, :, : op.counted_hw[0], : op.counted_hw[1]] = 1
    else:
        counted[:, :, top : top + height, left : left + width] = 1
    return counted


def _window_sum(padded: IntArray, op: ops.AvgPool, size_hw: tuple[int, ...]) -> IntArray:
    total = np.zeros((*padded.shape[:2], *size_hw), dtype=np.int64)
    for i in range(op.kernel_hw[0]):
        for j in range(op.kernel_hw[1]):
            total += _strided(padded, i, j, op.stride_hw, size_hw)
    return total


def _resize(op: ops.Resize, inputs: Inputs) -> IntArray:
    x = inputs[0].astype(np.int64)
    rows, row_rest = _sample_positions(op, 0)
    columns, column_rest = _sample_positions(op, 1)
    (n_y, n_x), (height, width) = op.numerator_hw, x.shape[2:]
    if op.mode == "nearest":
        rows, columns = rows + (2 * row_rest >= n_y), columns + (2 * column_rest >= n_x)
        return x[:, :, rows.clip(0, height - 1)][:, :, :, columns.clip(0, width - 1)]
    top, bottom = x[:, :, rows.clip(0, height - 1)], x[:, :, (rows + 1).clip(0, height - 1)]
    left, right = columns.clip(0, width - 1), (columns + 1).clip(0, width - 1)
    wy, wx = row_rest[:, None], column_rest
    acc = (top[..., left] * (n_x - wx) + top[..., right] * wx) * (n_y - wy)
    acc += (bottom[..., left] * (n_x - wx) + bottom[..., right] * wx) * wy
    return arithmetic.rescale(acc, op.multiplier, op.shift, op.lo, op.hi)


def _sample_positions(op: ops.Resize, axis: int) -> tuple[IntArray, IntArray]:
    """Whole and fractional part (in units of 1 / numerator) of each output position's place in the input."""
    position = np.arange(op.size_hw[axis], dtype=np.int64) * op.denominator_hw[axis] + op.offset_hw[axis]
    whole = np.floor_divide(position, op.numerator_hw[axis])
    return whole, position - whole * op.numerator_hw[axis]


def _clamp(op: ops.Clamp, inputs: Inputs) -> IntArray:
    return np.clip(inputs[0], op.lo, op.hi)


def _table(op: ops.Table, inputs: Inputs) -> IntArray:
    if op.table.shape[-1] == 513:
        return arithmetic.table_int16(inputs[0], op.table, op.dropped_bits)
    return arithmetic.table_int8(inputs[0], op.table)


def _reshape(op: ops.Reshape, inputs: Inputs) -> IntArray:
    return inputs[0].reshape(inputs[0].shape[0], *op.shape[1:])


def _transpose(op: ops.Transpose, inputs: Inputs) -> IntArray:
    return np.ascontiguousarray(inputs[0].transpose(op.permutation))


def _opaque(op: ops.Opaque, inputs: Inputs) -> IntArray:
    raise GraphError(f"{op.target} has no integer form and cannot be executed")


def _term(term: ops.Term, value: IntArray) -> IntArray:
    scaled = arithmetic.rescale_term(value, term.multiplier, term.shift)
    return -scaled if term.negative else scaled


def _per_channel(values: IntArray) -> IntArray:
    return values.astype(np.int64).reshape(1, -1, 1, 1)


def _pad(x: IntArray, padding_tlbr: tuple[int, int, int, int], value: int) -> IntArray:
    top, left, bottom, right = padding_tlbr
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _strided(x: IntArray, row: int, column: int, stride_hw: tuple[int, int], size_hw: tuple[int, ...]) -> IntArray:
    """The ``size_hw`` elements from (row, column) at the given strides, a view."""
    return x[
        :,
        :,
        row : row + (size_hw[0] - 1) * stride_hw[0] + 1 : stride_hw[0],
        column : column + (size_hw[1] - 1) * stride_hw[1] + 1 : stride_hw[1],
    ]


def _convolved_shape(op: ops.Conv2d, shape: tuple[int, ...]) -> tuple[int, ...]:
    return attrs.evolve(op, residual=None).infer_shape((shape,))


_KERNELS: dict[type, Callable[[Any, Inputs], IntArray]] = {
    ops.Conv2d: _conv2d,
    ops.ConvTranspose2d: _conv_transpose2d,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.Constant: _constant,
    ops.Rescale: _rescale,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Pad: _pad_op,
    ops.MaxPool: _max_pool,
    ops.AvgPool: _avg_pool,
    ops.Resize: _resize,
    ops.Clamp: _clamp,
    ops.Table: _table,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Opaque: _opaque,
}
