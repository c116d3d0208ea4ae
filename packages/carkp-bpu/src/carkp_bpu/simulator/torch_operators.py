"""The IR's operators as functions of torch tensors, on any device; ``ir.reference`` is the definition.

All is int64 but the matrix products. Legend: as in ``lowering.conv``; tensors are in the IR's order (NCHW).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional

from carkp_bpu.simulator.lowering import Kernel
from carkp_bpu.simulator.lowering.conv import conv2d_parts, transposed_parts
from carkp_bpu.simulator.lowering.part import Part
from carkp_bpu.simulator.torch_products import Weights
from carkp_core.ir import operators as ops
from carkp_core.ir.arithmetic import ADD_FRACTION_BITS, ADD_TERM_LIMIT, INT_RANGE
from carkp_core.ir.graph import Node, TensorType
from carkp_core.ir.reference import counted_positions, execute_node

Array = npt.NDArray[Any]
Step = Callable[[Sequence[Tensor]], Tensor]


@frozen(eq=False)
class Site:
    """A node and where it is to run."""

    node: Node
    inputs: tuple[TensorType, ...]
    device: torch.device
    int8_multiply: bool | None

    @property
    def op(self) -> Any:
        """The node's operator."""
        return self.node.op

    def tensor(self, values: Any) -> Tensor:
        """Parameters as int64 on the device."""
        return torch.from_numpy(np.array(values, dtype=np.int64)).to(self.device)


def make_step(site: Site, kernel: Kernel | None = None) -> Step:
    """The function of a node; a plugin's operator runs on the CPU, by its kernel or by its own definition."""
    make = _MAKERS.get(type(site.op))
    return make(site) if make else _as_it_is(site, kernel)


def _as_it_is(site: Site, kernel: Kernel | None) -> Step:
    def run(inputs: Sequence[Tensor]) -> Tensor:
        values = tuple(value.cpu().numpy() for value in inputs)
        result = execute_node(site.node, values) if kernel is None else kernel(site.op, values)
        return torch.from_numpy(np.ascontiguousarray(result)).to(site.device)

    return run


# Arithmetic, as ``ir.arithmetic`` defines it.


def _shifted(value: Tensor, shift: Tensor | int) -> Tensor:
    one: Any = torch.ones_like(shift) if isinstance(shift, Tensor) else 1
    shifted: Tensor = (value.long() + ((one << shift) >> 1)) >> shift
    return shifted


def _rescale(value: Tensor, multiplier: Tensor | int, shift: Tensor | int, lo: int, hi: int) -> Tensor:
    return _shifted(value.long() * multiplier, shift).clamp(lo, hi)


def _term(value: Tensor, term: ops.Term) -> Tensor:
    limit = ADD_TERM_LIMIT
    scaled = _rescale(value, term.multiplier, term.shift - ADD_FRACTION_BITS, -limit, limit)
    return -scaled if term.negative else scaled


# Convolutions.


@frozen(eq=False)
class _Share:
    """A part of a convolution with its numbers on the device."""

    part: Part
    weights: Weights
    bias: Tensor = field()
    multiplier: Tensor
    shift: Tensor


def _shares(site: Site, parts: Sequence[Part]) -> list[_Share]:
    return [
        _Share(
            part,
            Weights.of(part.matrix, site.inputs[0].dtype, site.device, site.int8_multiply),
            *(site.tensor(part.rescale[which]) for which in (2, 0, 1)),
        )
        for part in parts
    ]


def _rows(x: Tensor, part: Part, grid: tuple[int, int]) -> Tensor:
    """The windows of NHWC ``x`` as matrix rows [N Y X, K]."""
    if part.window is None:
        return x.reshape(-1, x.shape[3])
    kh, kw, stride_y, stride_x, step_y, step_x, top, left = part.window
    first, group = part.channels
    if kh * kw == 0:
        return x.new_zeros((x.shape[0] * grid[0] * grid[1], 0))
    needed = [(grid[d] - 1) * (stride_y, stride_x)[d] + ((kh, kw)[d] - 1) * (step_y, step_x)[d] + 1 for d in (0, 1)]
    # A window that starts inside has a negative border, which cuts off.
    below, right = needed[0] - top - x.shape[1], needed[1] - left - x.shape[2]
    x = functional.pad(x[..., first : first + group], (0, 0, left, right, top, below)).contiguous()
    image, line, pixel, _ = x.stride()
    size = (x.shape[0], *grid, kh, kw, group)
    strides = (image, stride_y * line, stride_x * pixel, step_y * line, step_x * pixel, 1)
    return x.as_strided(size, strides).reshape(-1, kh * kw * group)


def _convolve(site: Site, shares: Sequence[_Share], residual: ops.Term | None) -> Step:
    op, type_ = site.op, site.node.type

    def run(inputs: Sequence[Tensor]) -> Tensor:
        x = inputs[0].permute(0, 2, 3, 1)
        images = max(len(value) for value in inputs)  # a constant has one image for all
        out = torch.empty((images, *type_.shape[2:], type_.shape[1]), dtype=torch.int64, device=x.device)
        for share in shares:
            part = share.part
            grid = part.grid((out.shape[1], out.shape[2]))
            sums = share.weights.sums(_rows(x, part, grid)) + share.bias
            channels = slice(part.channel, part.channel + sums.shape[1])
            place = out[:, part.first_yx[0] :: part.step_yx[0], part.first_yx[1] :: part.step_yx[1], channels]
            if residual is None:
                value = _rescale(sums, share.multiplier, share.shift, op.lo, op.hi).reshape(-1, *place.shape[1:])
            else:
                limit, other = ADD_TERM_LIMIT, inputs[1].permute(0, 2, 3, 1)[..., channels]
                value = _rescale(sums, share.multiplier, share.shift - ADD_FRACTION_BITS, -limit, limit)
                value = value.reshape(-1, *place.shape[1:]) + _term(other, residual)
                value = _shifted(value, ADD_FRACTION_BITS).clamp(op.lo, op.hi)
            place.copy_(value)
        return out.permute(0, 3, 1, 2)

    return run


def _conv2d(site: Site) -> Step:
    op: ops.Conv2d = site.op
    if site.inputs[0].dtype not in ("int8", "int16"):
        return _as_it_is(site, None)
    if op.depthwise:
        return _depthwise(site)
    return _convolve(site, _shares(site, conv2d_parts(op)), op.residual)


def _conv_transpose2d(site: Site) -> Step:
    if site.inputs[0].dtype not in ("int8", "int16"):
        return _as_it_is(site, None)
    return _convolve(site, _shares(site, transposed_parts(site.op, site.node.type.shape[2:])), None)


def _depthwise(site: Site) -> Step:
    """Tap by tap, in int64."""
    op: ops.Conv2d = site.op
    size = site.node.type.shape[2:]
    weight = site.tensor(op.weight[:, 0])[None]
    bias, multiplier, shift = (site.tensor(v).reshape(1, -1, 1, 1) for v in (op.bias, op.multiplier, op.shift))

    def run(inputs: Sequence[Tensor]) -> Tensor:
        top, left, bottom, right = op.padding_tlbr
        padded = functional.pad(inputs[0], (left, right, top, bottom)).long()
        sums = bias.expand(padded.shape[0], -1, *size).clone()
        for i in range(op.weight.shape[2]):
            for j in range(op.weight.shape[3]):
                at = (i * op.dilation_hw[0], j * op.dilation_hw[1])
                sums += _strided(padded, at, op.stride_hw, size) * weight[:, :, i : i + 1, j : j + 1]
        if op.residual is None:
            return _rescale(sums, multiplier, shift, op.lo, op.hi)
        limit = ADD_TERM_LIMIT
        total = _rescale(sums, multiplier, shift - ADD_FRACTION_BITS, -limit, limit) + _term(inputs[1], op.residual)
        return _shifted(total, ADD_FRACTION_BITS).clamp(op.lo, op.hi)

    return run


def _strided(x: Tensor, first: tuple[int, int], stride: tuple[int, int], size: Sequence[int]) -> Tensor:
    stop = [first[d] + (size[d] - 1) * stride[d] + 1 for d in (0, 1)]
    return x[:, :, first[0] : stop[0] : stride[0], first[1] : stop[1] : stride[1]]


# Pooling and resizing.


def _max_pool(site: Site) -> Step:
    op: ops.MaxPool = site.op
    size, lowest = site.node.type.shape[2:], INT_RANGE[site.inputs[0].dtype][0]
    top, left, bottom, right = op.padding_tlbr

    def run(inputs: Sequence[Tensor]) -> Tensor:
        padded = functional.pad(inputs[0], (left, right, top, bottom), value=lowest)
        best = _strided(padded, (0, 0), op.stride_hw, size)
        for i in range(op.kernel_hw[0]):
            for j in range(op.kernel_hw[1]):
                at = (i * op.dilation_hw[0], j * op.dilation_hw[1])
                best = torch.maximum(best, _strided(padded, at, op.stride_hw, size))
        return best

    return run


def _avg_pool(site: Site) -> Step:
    op: ops.AvgPool = site.op
    size = site.node.type.shape[2:]
    count = counted_positions(op, site.inputs[0].shape[2:])
    multiplier, shift = site.tensor(op.multiplier[count]), site.tensor(op.shift[count])
    top, left, bottom, right = op.padding_tlbr

    def run(inputs: Sequence[Tensor]) -> Tensor:
        padded = functional.pad(inputs[0], (left, right, top, bottom)).long()
        total = torch.zeros((*padded.shape[:2], *size), dtype=torch.int64, device=padded.device)
        for i in range(op.kernel_hw[0]):
            for j in range(op.kernel_hw[1]):
                total += _strided(padded, (i, j), op.stride_hw, size)
        return _rescale(total, multiplier, shift, op.lo, op.hi)

    return run


def _resize(site: Site) -> Step:
    op: ops.Resize = site.op
    (wholes, rests), limits = zip(*(_positions(op, axis) for axis in (0, 1)), strict=True), site.inputs[0].shape[2:]
    numerators = op.numerator_hw
    if op.mode == "nearest":
        near = [site.tensor((wholes[d] + (2 * rests[d] >= numerators[d])).clip(0, limits[d] - 1)) for d in (0, 1)]
        return lambda inputs: inputs[0].index_select(2, near[0]).index_select(3, near[1])
    before = [site.tensor(wholes[d].clip(0, limits[d] - 1)) for d in (0, 1)]
    after = [site.tensor((wholes[d] + 1).clip(0, limits[d] - 1)) for d in (0, 1)]
    y, x = site.tensor(rests[0])[:, None], site.tensor(rests[1])

    def run(inputs: Sequence[Tensor]) -> Tensor:
        value = inputs[0].long()

        def line(rows: Tensor) -> Tensor:
            picked = value.index_select(2, rows)
            return picked.index_select(3, before[1]) * (numerators[1] - x) + picked.index_select(3, after[1]) * x

        total = line(before[0]) * (numerators[0] - y) + line(after[0]) * y
        return _rescale(total, op.multiplier, op.shift, op.lo, op.hi)

    return run


def _positions(op: ops.Resize, axis: int) -> tuple[Array, Array]:
    """Whole and fractional part (in units of 1 / numerator) of each output position's place in the input."""
    position = np.arange(op.size_hw[axis], dtype=np.int64) * op.denominator_hw[axis] + op.offset_hw[axis]
    whole = np.floor_divide(position, op.numerator_hw[axis])
    return whole, position - whole * op.numerator_hw[axis]


# Element by element, and moves.


def _add(site: Site) -> Step:
    op: ops.Add = site.op

    def run(inputs: Sequence[Tensor]) -> Tensor:
        terms = [_term(value, term) for value, term in zip(inputs, op.terms, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return _shifted(total, ADD_FRACTION_BITS).clamp(op.lo, op.hi)

    return run


def _mul(site: Site) -> Step:
    op: ops.Mul = site.op
    return lambda inputs: _rescale(inputs[0].long() * inputs[1].long(), op.multiplier, op.shift, op.lo, op.hi)


def _constant(site: Site) -> Step:
    value = torch.from_numpy(np.ascontiguousarray(site.op.value)).to(site.device)
    return lambda inputs: value


def _concat(site: Site) -> Step:
    op: ops.Concat = site.op

    def run(inputs: Sequence[Tensor]) -> Tensor:
        pairs = zip(inputs, op.terms, strict=True)
        parts = [_rescale(v, term.multiplier, term.shift, op.lo, op.hi) for v, term in pairs]
        images = max(len(part) for part in parts)  # a constant has one image for all
        return torch.cat([part.expand(images, *part.shape[1:]) for part in parts], op.axis)

    return run


def _slice(site: Site) -> Step:
    op: ops.Slice = site.op
    index = [slice(None)] * len(site.inputs[0].shape)
    index[op.axis] = slice(op.start, op.stop, op.step)
    return lambda inputs: inputs[0][tuple(index)]


def _pad(site: Site) -> Step:
    top, left, bottom, right = site.op.padding_tlbr
    return lambda inputs: functional.pad(inputs[0], (left, right, top, bottom), value=site.op.value)


def _table(site: Site) -> Step:
    op: ops.Table = site.op
    table = site.tensor(op.table)
    if op.table.shape[-1] == 513:
        limits = INT_RANGE["int16" if op.dropped_bits else "int32"]

        def interpolate(inputs: Sequence[Tensor]) -> Tensor:
            wide = inputs[0].long()
            index, fraction = (wide >> 7) + 256, wide & 127
            value = (table[index] << 7) + (table[index + 1] - table[index]) * fraction
            return _shifted(value, op.dropped_bits).clamp(*limits)

        return interpolate
    if table.ndim == 1:
        return lambda inputs: table[inputs[0].long() + 128]
    channel = site.tensor(np.arange(table.shape[0]).reshape(1, -1, *[1] * (len(site.inputs[0].shape) - 2)))
    return lambda inputs: table[channel, inputs[0].long() + 128]


_MAKERS: dict[type, Callable[[Site], Step]] = {
    ops.Conv2d: _conv2d,
    ops.ConvTranspose2d: _conv_transpose2d,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.Constant: _constant,
    ops.Rescale: lambda s: lambda inputs: _rescale(inputs[0], s.op.multiplier, s.op.shift, s.op.lo, s.op.hi),
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Pad: _pad,
    ops.MaxPool: _max_pool,
    ops.AvgPool: _avg_pool,
    ops.Resize: _resize,
    ops.Clamp: lambda site: lambda inputs: inputs[0].long().clamp(site.op.lo, site.op.hi),
    ops.Table: _table,
    ops.Reshape: lambda site: lambda inputs: inputs[0].reshape(inputs[0].shape[0], *site.op.shape[1:]),
    ops.Transpose: lambda site: lambda inputs: inputs[0].permute(site.op.permutation),
}
