"""The operators of the integer IR: frozen records of explicit integers, with their shape rules.

Legend: ``O`` output channels, ``I`` input channels, ``kh kw`` kernel. Padding is (top, left, bottom, right).
``multiplier`` (int64) and ``shift`` (int64) are the rescale of ``ir.arithmetic``; ``lo`` and ``hi`` its clamp,
which is also where a fused ReLU or ReLU6 acts.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_core.ir.arithmetic import TABLE_FRACTION_BITS
from carkp_core.ir.graph import Operation

Shape = tuple[int, ...]
IntArray = npt.NDArray[Any]


def _int8(value: npt.ArrayLike) -> IntArray:
    return np.ascontiguousarray(value, dtype=np.int8)


def _int32(value: npt.ArrayLike) -> IntArray:
    return np.ascontiguousarray(value, dtype=np.int32)


def _int64(value: npt.ArrayLike) -> IntArray:
    return np.ascontiguousarray(value, dtype=np.int64)


@frozen
class Term:
    """How one tensor enters an add or a concat. For an add it keeps 15 fractional bits (``rescale_term``)."""

    multiplier: int
    shift: int
    negative: bool = False


@frozen(eq=False)
class Conv2d(Operation):
    """Convolution, bias, rescale per output channel, clamp; optionally a residual tensor added before the clamp.

    Inputs: x [N, I, H, W] and, with ``residual``, a tensor of the output's shape. With ``residual`` the
    accumulator and the residual are both terms of an add.
    """

    kind: ClassVar[str] = "conv2d"
    weight: IntArray = field(converter=_int8, repr=False)  # [O, I / groups, kh, kw]
    bias: IntArray = field(converter=_int32, repr=False)  # [O]
    multiplier: IntArray = field(converter=_int64, repr=False)  # [O]
    shift: IntArray = field(converter=_int64, repr=False)  # [O]
    lo: int
    hi: int
    stride_hw: tuple[int, int] = (1, 1)
    padding_tlbr: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation_hw: tuple[int, int] = (1, 1)
    groups: int = 1
    residual: Term | None = None

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        n, channels, height, width = shapes[0]
        out_channels, group_channels, kh, kw = self.weight.shape
        if channels != group_channels * self.groups or out_channels % self.groups:
            raise ValueError(f"{channels} input channels do not fit weight {self.weight.shape} in {self.groups} groups")
        top, left, bottom, right = self.padding_tlbr
        spans = ((height + top + bottom, kh, 0), (width + left + right, kw, 1))
        out = [(size - self.dilation_hw[d] * (k - 1) - 1) // self.stride_hw[d] + 1 for size, k, d in spans]
        result = (n, out_channels, out[0], out[1])
        if min(result) < 1:
            raise ValueError(f"input {shapes[0]} is smaller than the kernel {(kh, kw)}")
        if (self.residual is not None) != (len(shapes) == 2) or any(s != result for s in shapes[1:]):
            raise ValueError(f"residual {shapes[1:]} does not fit output {result}")
        return result

    @property
    def depthwise(self) -> bool:
        """One filter for each channel."""
        return bool(self.groups == self.weight.shape[0] and self.weight.shape[1] == 1)


@frozen(eq=False)
class ConvTranspose2d(Operation):
    """Transposed convolution (zero-stuffing), bias, rescale per output channel, clamp."""

    kind: ClassVar[str] = "conv_transpose2d"
    weight: IntArray = field(converter=_int8, repr=False)  # [I, O / groups, kh, kw]
    bias: IntArray = field(converter=_int32, repr=False)  # [O]
    multiplier: IntArray = field(converter=_int64, repr=False)  # [O]
    shift: IntArray = field(converter=_int64, repr=False)  # [O]
    lo: int
    hi: int
    stride_hw: tuple[int, int] = (1, 1)
    padding_tlbr: tuple[int, int, int, int] = (0, 0, 0, 0)
    output_padding_hw: tuple[int, int] = (0, 0)
    groups: int = 1

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        n, channels, height, width = shapes[0]
        in_channels, group_out, kh, kw = self.weight.shape
        if channels != in_channels or channels % self.groups:
            raise ValueError(f"{channels} input channels do not fit weight {self.weight.shape} in {self.groups} groups")
        top, left, bottom, right = self.padding_tlbr
        out_h = (height - 1) * self.stride_hw[0] - top - bottom + kh + self.output_padding_hw[0]
        out_w = (width - 1) * self.stride_hw[1] - left - right + kw + self.output_padding_hw[1]
        if min(out_h, out_w) < 1:
            raise ValueError(f"input {shapes[0]} has no output: padding {self.padding_tlbr} takes all of it")
        return (n, group_out * self.groups, out_h, out_w)


@frozen
class Add(Operation):
    """Sum of tensors, each rescaled to the output scale with 15 fractional bits; shapes broadcast.

    A constant term is the output of a ``Constant`` node.
    """

    kind: ClassVar[str] = "add"
    terms: tuple[Term, ...]
    lo: int
    hi: int

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        if len(shapes) != len(self.terms):
            raise ValueError(f"{len(shapes)} inputs for {len(self.terms)} terms")
        return tuple(np.broadcast_shapes(*shapes))


@frozen
class Mul(Operation):
    """Product of two tensors, rescaled; shapes broadcast.

    A product of int32 tensors has TOSA MUL's form, which fits int64: multiplier 1 and a shift of 0 to 62, where a
    shift of 0 rounds nothing.
    """

    kind: ClassVar[str] = "mul"
    multiplier: int
    shift: int
    lo: int
    hi: int

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return tuple(np.broadcast_shapes(*shapes))


@frozen(eq=False)
class Constant(Operation):
    """A constant tensor (first dimension 1)."""

    kind: ClassVar[str] = "constant"
    value: IntArray = field(repr=False)

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return tuple(self.value.shape)


@frozen
class Rescale(Operation):
    """One tensor to another scale or type: RESCALE with one multiplier."""

    kind: ClassVar[str] = "rescale"
    multiplier: int
    shift: int
    lo: int
    hi: int

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return shapes[0]


@frozen
class Concat(Operation):
    """Concatenation along ``axis``, each input rescaled (RESCALE, 8- or 16-bit result)."""

    kind: ClassVar[str] = "concat"
    terms: tuple[Term, ...]
    axis: int
    lo: int
    hi: int

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        if len(shapes) != len(self.terms) or not 0 < self.axis < len(shapes[0]):
            raise ValueError(f"{len(shapes)} inputs along axis {self.axis} for {len(self.terms)} terms")
        rest = {s[: self.axis] + s[self.axis + 1 :] for s in shapes}
        if len(rest) != 1:
            raise ValueError(f"shapes {shapes} differ outside axis {self.axis}")
        joined = sum(s[self.axis] for s in shapes)
        return (*shapes[0][: self.axis], joined, *shapes[0][self.axis + 1 :])


@frozen
class Slice(Operation):
    """``x[..., start:stop:step, ...]`` along one axis; indices are within the axis, step positive."""

    kind: ClassVar[str] = "slice"
    axis: int
    start: int
    stop: int
    step: int = 1

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        shape = list(shapes[0])
        if not (0 < self.axis < len(shape) and 0 <= self.start < self.stop <= shape[self.axis] and self.step > 0):
            raise ValueError(f"slice {self.start}:{self.stop}:{self.step} of axis {self.axis} leaves {shapes[0]}")
        shape[self.axis] = len(range(self.start, self.stop, self.step))
        return tuple(shape)


@frozen
class Pad(Operation):
    """Constant padding of H and W with an integer value."""

    kind: ClassVar[str] = "pad"
    padding_tlbr: tuple[int, int, int, int]
    value: int = 0

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        *front, height, width = shapes[0]
        top, left, bottom, right = self.padding_tlbr
        return (*front, height + top + bottom, width + left + right)


@frozen
class MaxPool(Operation):
    """Maximum of a window; padded positions never win. Bottom and right padding include ceil mode's excess."""

    kind: ClassVar[str] = "max_pool"
    kernel_hw: tuple[int, int]
    stride_hw: tuple[int, int]
    padding_tlbr: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation_hw: tuple[int, int] = (1, 1)

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return _pooled(shapes[0], self.kernel_hw, self.stride_hw, self.padding_tlbr, self.dilation_hw)


@frozen(eq=False)
class AvgPool(Operation):
    """Window sum in int32, rescaled by the multiplier of the window's count of summed positions.

    ``multiplier`` and ``shift`` are indexed by that count: [kh * kw + 1]. With ``count_include_pad`` every
    window counts the padded positions that lie inside ``counted_hw`` (the padded size, without ceil mode's
    excess); without it only positions of the input.
    """

    kind: ClassVar[str] = "avg_pool"
    kernel_hw: tuple[int, int]
    stride_hw: tuple[int, int]
    padding_tlbr: tuple[int, int, int, int]
    count_include_pad: bool
    #: Positions of the padded input, from its top left corner, that count when ``count_include_pad``.
    counted_hw: tuple[int, int]
    multiplier: IntArray = field(converter=_int64, repr=False)
    shift: IntArray = field(converter=_int64, repr=False)
    lo: int = -128
    hi: int = 127

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return _pooled(shapes[0], self.kernel_hw, self.stride_hw, self.padding_tlbr, (1, 1))


@frozen
class Resize(Operation):
    """TOSA RESIZE: output position o samples input position (o * d + offset) / n in each direction.

    ``nearest`` rounds that position half up. ``bilinear`` sums four neighbours weighted in units of 1 / n, then
    rescales by ``multiplier`` and ``shift`` (1 / (n_y n_x), and the scales when they differ). Positions are
    clamped to the input. Size (h, w) of the output is explicit; TOSA's border, from which TOSA derives that size,
    is checked against it when it is given.
    """

    kind: ClassVar[str] = "resize"
    mode: str
    size_hw: tuple[int, int]
    numerator_hw: tuple[int, int]
    denominator_hw: tuple[int, int]
    offset_hw: tuple[int, int]
    multiplier: int = 1 << 30
    shift: int = 30
    lo: int = -128
    hi: int = 127
    border_hw: tuple[int, int] | None = None

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        if self.border_hw is not None:
            for d, size in enumerate(shapes[0][-2:]):
                span = (size - 1) * self.numerator_hw[d] - self.offset_hw[d] + self.border_hw[d]
                if span != (self.size_hw[d] - 1) * self.denominator_hw[d]:
                    raise ValueError(f"size {self.size_hw} does not follow from border {self.border_hw}")
        return (*shapes[0][:-2], *self.size_hw)


@frozen
class Clamp(Operation):
    """Clamp to [lo, hi], same scale."""

    kind: ClassVar[str] = "clamp"
    lo: int
    hi: int

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return shapes[0]


@frozen(eq=False)
class Table(Operation):
    """A function of one tensor: int8 [256] or per channel [C, 256] entries, int16 [513] interpolated entries.

    ``function`` is the name it was made from, for people. ``dropped_bits`` of the 7 fractional bits that
    interpolation makes are rounded away: all, for an int16 result, or none, for TOSA's int32 result.
    """

    kind: ClassVar[str] = "table"
    table: IntArray = field(repr=False)
    function: str = ""
    dropped_bits: int = TABLE_FRACTION_BITS

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        if self.table.ndim == 2 and self.table.shape[0] != shapes[0][1]:
            raise ValueError(f"{self.table.shape[0]} tables for {shapes[0][1]} channels")
        return shapes[0]


@frozen
class Reshape(Operation):
    """The same elements in another shape; the first dimension stays the batch."""

    kind: ClassVar[str] = "reshape"
    shape: Shape

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        if self.shape[0] != 1 or math.prod(self.shape) != math.prod(shapes[0]):
            raise ValueError(f"{shapes[0]} cannot become {self.shape}")
        return self.shape


@frozen
class Transpose(Operation):
    """Permutation of the dimensions; the batch stays first."""

    kind: ClassVar[str] = "transpose"
    permutation: tuple[int, ...]

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        if self.permutation[0] != 0 or sorted(self.permutation) != list(range(len(shapes[0]))):
            raise ValueError(f"permutation {self.permutation} does not fit {shapes[0]}")
        return tuple(shapes[0][p] for p in self.permutation)


@frozen
class Opaque(Operation):
    """An operator without integer form. It exists so that a checker can name it; nothing executes it."""

    kind: ClassVar[str] = "opaque"
    target: str
    shape: Shape

    def infer_shape(self, shapes: tuple[Shape, ...]) -> Shape:
        return self.shape


def _pooled(
    shape: Shape,
    kernel_hw: tuple[int, int],
    stride_hw: tuple[int, int],
    padding_tlbr: tuple[int, int, int, int],
    dilation_hw: tuple[int, int],
) -> Shape:
    n, channels, height, width = shape
    top, left, bottom, right = padding_tlbr
    out_h = (height + top + bottom - dilation_hw[0] * (kernel_hw[0] - 1) - 1) // stride_hw[0] + 1
    out_w = (width + left + right - dilation_hw[1] * (kernel_hw[1] - 1) - 1) // stride_hw[1] + 1
    if min(out_h, out_w) < 1:
        raise ValueError(f"input {shape} is smaller than the window {kernel_hw}")
    return (n, channels, out_h, out_w)


#: Every operator of core, by kind; readers accept these and what plugins add.
OPERATIONS: tuple[type[Operation], ...] = (
    Conv2d,
    ConvTranspose2d,
    Add,
    Mul,
    Constant,
    Rescale,
    Concat,
    Slice,
    Pad,
    MaxPool,
    AvgPool,
    Resize,
    Clamp,
    Table,
    Reshape,
    Transpose,
    Opaque,
)
