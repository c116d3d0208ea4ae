"""The instruction set of carkp's machine model: the one language of compiler, simulators and performance model.

Machine
-------
One byte-addressed DDR, one byte-addressed SRAM, four engines. Each engine runs its own instructions in program
order, one at a time; engines run in parallel. Only the DMA engines touch DDR.

========== ===========================================================================================
engine     instructions
========== ===========================================================================================
dma_in     ``Load`` (DDR -> SRAM)
dma_out    ``Store`` (SRAM -> DDR)
conv       ``Conv``, ``Deconv``
vector     ``Pool``, ``Resize``, ``Add``, ``Mul``, ``Rescale``, ``Clamp``, ``Table``, ``Copy``, ``Fill``
========== ===========================================================================================

Synchronization: every engine counts the instructions it has completed. An instruction starts when its engine is
free and, for every engine ``e`` (in the order of ``ENGINES``), at least ``waits[e]`` instructions of ``e`` are
complete. There are no other barriers.

Data layout
-----------
Integers are little endian. A feature map is stored row by row, pixel by pixel, channels innermost (HWC). In DDR
it is dense. In SRAM pixels lie ``pixel_pitch`` bytes apart and rows ``row_pitch``; the compiler rounds a pixel's
channels up to the march's ``channel_align``. Padding bytes are never read. A tensor of another rank
(1, C, d2, ..., dk) is a map of C channels, width dk and height d2 * ... * d(k-1).

Structured instructions name rows and columns of the *whole* tensor: a ``FeatureMap`` describes a window of it
that is on chip. Row ``r`` lives in slot ``(r - first_row) % ring_rows``; column ``x`` is ``x - first_column``
pixels into the row. A resident tensor has ``ring_rows == height`` and begins at (0, 0); a stripe or a rolling line
buffer has fewer slots. Rows and columns outside the tensor read as padding. So a tile is computed the same way
wherever its input comes from.

Parameters in SRAM: weights int8 ``[kh][kw][I / groups][O]`` (``Deconv``: ``[kh][kw][I][O / groups]``); ``params``
is bias int32 ``[O]``, multiplier int32 ``[O]``, shift uint8 ``[O]``, one after the other without padding. Group ``g``
holds the g-th of equal, adjacent shares of input and of output channels.

All arithmetic is that of ``carkp_core.ir.arithmetic``; accumulators are int32.

Legend: ``O`` output channels of the instruction, ``I`` input channels, ``kh kw`` kernel. ``rows`` and
``columns`` are half-open ranges of the output tensor.
"""

# ruff: noqa: RUF009 - the defaults are attrs fields.
from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

from attrs import frozen

from carkp_bpu.hbm.forms import I32, U8, U16, U32, U64, each, many, nested, optional, scalar

#: Engines, in the order of ``waits``.
ENGINES: tuple[str, ...] = ("dma_in", "dma_out", "conv", "vector")
#: An element's size in bytes is its type's code.
DTYPES: dict[int, str] = {1: "int8", 2: "int16", 4: "int32"}
DTYPE_CODES: dict[str, int] = {name: code for code, name in DTYPES.items()}

Pair: TypeAlias = tuple[int, int]
Four: TypeAlias = tuple[int, int, int, int]
Three: TypeAlias = tuple[int, int, int]

NO_WAITS: Four = (0, 0, 0, 0)


def map_shape(shape: tuple[int, ...]) -> Three:
    """Height, width and channels of the map that holds a tensor (1, C, d2, ..., dk)."""
    channels = shape[1] if len(shape) > 1 else 1
    width = shape[-1] if len(shape) > 2 else 1
    return math.prod(shape[2:-1]), width, channels


@frozen
class FeatureMap:
    """A window of a tensor in SRAM; see the module's text."""

    address: int = scalar(U32)
    dtype: int = scalar(U8)
    height: int = scalar(U32)
    width: int = scalar(U32)
    channels: int = scalar(U32)
    pixel_pitch: int = scalar(U32)
    row_pitch: int = scalar(U32)
    ring_rows: int = scalar(U32)
    first_row: int = scalar(U32)
    first_column: int = scalar(U32)


@frozen
class View:
    """Strided elements in SRAM: element (a, b, c, d) lies at ``address`` + the sum of index x stride (bytes).

    A stride of 0 broadcasts. The sizes are the instruction's ``dims``; by convention the last is channels.
    """

    address: int = scalar(U32)
    dtype: int = scalar(U8)
    strides: Four = each(U32, 4)


@frozen
class Term:
    """How an operand enters a sum: the rescale of ``arithmetic.rescale_term`` and its sign (1: subtract)."""

    view: View = nested(View)
    multiplier: int = scalar(U32)
    shift: int = scalar(U8)
    negative: int = scalar(U8)


@frozen
class Residual:
    """A tensor added to a convolution's accumulator before the clamp, both as terms of an add."""

    map: FeatureMap = nested(FeatureMap)
    multiplier: int = scalar(U32)
    shift: int = scalar(U8)
    negative: int = scalar(U8)


@frozen
class Load:
    """Copy from DDR to SRAM: ``dims`` = three counts and a run of contiguous bytes; strides in bytes."""

    OPCODE: ClassVar[int] = 1
    ENGINE: ClassVar[str] = "dma_in"
    waits: Four = each(U32, 4)
    ddr: int = scalar(U64)
    sram: int = scalar(U32)
    dims: Four = each(U32, 4)
    ddr_strides: Three = each(U32, 3)
    sram_strides: Three = each(U32, 3)


@frozen
class Store:
    """Copy from SRAM to DDR, as ``Load``."""

    OPCODE: ClassVar[int] = 2
    ENGINE: ClassVar[str] = "dma_out"
    waits: Four = each(U32, 4)
    ddr: int = scalar(U64)
    sram: int = scalar(U32)
    dims: Four = each(U32, 4)
    ddr_strides: Three = each(U32, 3)
    sram_strides: Three = each(U32, 3)


@frozen
class Conv:
    """A tile of a convolution: regular, grouped or depthwise (``groups`` == channels), with its rescale.

    ``output.channels`` filters over ``input.channels`` in ``groups``; a tile of some output channels has maps
    whose address points at the first of them.
    """

    OPCODE: ClassVar[int] = 16
    ENGINE: ClassVar[str] = "conv"
    waits: Four = each(U32, 4)
    input: FeatureMap = nested(FeatureMap)
    output: FeatureMap = nested(FeatureMap)
    residual: Residual | None = optional(Residual)
    weights: int = scalar(U32)
    params: int = scalar(U32)
    rows: Pair = each(U32, 2)
    columns: Pair = each(U32, 2)
    kernel_hw: Pair = each(U16, 2)
    stride_hw: Pair = each(U16, 2)
    dilation_hw: Pair = each(U16, 2)
    padding_tl: Pair = each(U16, 2)
    groups: int = scalar(U32)
    lo: int = scalar(I32)
    hi: int = scalar(I32)


@frozen
class Deconv:
    """A tile of a transposed convolution (zero-stuffing) with its rescale.

    Output (y, x) sums input (i, j) times kernel (y + top - i * stride, x + left - j * stride).
    """

    OPCODE: ClassVar[int] = 17
    ENGINE: ClassVar[str] = "conv"
    waits: Four = each(U32, 4)
    input: FeatureMap = nested(FeatureMap)
    output: FeatureMap = nested(FeatureMap)
    weights: int = scalar(U32)
    params: int = scalar(U32)
    rows: Pair = each(U32, 2)
    columns: Pair = each(U32, 2)
    kernel_hw: Pair = each(U16, 2)
    stride_hw: Pair = each(U16, 2)
    padding_tl: Pair = each(U16, 2)
    groups: int = scalar(U32)
    lo: int = scalar(I32)
    hi: int = scalar(I32)


@frozen
class Pool:
    """A tile of max pooling (``mode`` 0) or average pooling (1).

    Average: window sums are rescaled by the entry of the window's count: ``entries`` records at ``table``,
    count uint32 ``[n]`` (rising), multiplier int32 ``[n]``, shift uint8 ``[n]``. Positions of the padded input
    count when they lie in ``counted`` = (top, left, bottom, right), half open, in padded coordinates.

    A window too high for SRAM is done in parts: only its rows ``kernel_rows`` take part, an instruction that is not
    ``first`` continues from int32 ``[rows][columns][channels]`` at ``partial``, and one that is not ``last``
    leaves its result there instead of in ``output``.
    """

    OPCODE: ClassVar[int] = 32
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    input: FeatureMap = nested(FeatureMap)
    output: FeatureMap = nested(FeatureMap)
    mode: int = scalar(U8)
    rows: Pair = each(U32, 2)
    columns: Pair = each(U32, 2)
    kernel_hw: Pair = each(U32, 2)
    stride_hw: Pair = each(U32, 2)
    dilation_hw: Pair = each(U16, 2)
    padding_tl: Pair = each(U16, 2)
    kernel_rows: Pair = each(U32, 2)
    first: int = scalar(U8)
    last: int = scalar(U8)
    partial: int = scalar(U32)
    table: int = scalar(U32)
    entries: int = scalar(U32)
    counted: Four = each(U32, 4)
    lo: int = scalar(I32)
    hi: int = scalar(I32)


@frozen
class Resize:
    """A tile of nearest (``mode`` 0) or bilinear (1) resizing, as ``ir.operators.Resize``."""

    OPCODE: ClassVar[int] = 33
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    input: FeatureMap = nested(FeatureMap)
    output: FeatureMap = nested(FeatureMap)
    mode: int = scalar(U8)
    rows: Pair = each(U32, 2)
    columns: Pair = each(U32, 2)
    numerator_hw: Pair = each(U32, 2)
    denominator_hw: Pair = each(U32, 2)
    offset_hw: Pair = each(I32, 2)
    multiplier: int = scalar(U32)
    shift: int = scalar(U8)
    lo: int = scalar(I32)
    hi: int = scalar(I32)


@frozen
class Add:
    """Sum of terms with 15 fractional bits, rounded and clamped."""

    OPCODE: ClassVar[int] = 48
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    dims: Four = each(U32, 4)
    output: View = nested(View)
    terms: tuple[Term, ...] = many(Term)
    lo: int = scalar(I32)
    hi: int = scalar(I32)


@frozen
class Mul:
    """Product of two operands, rescaled and clamped."""

    OPCODE: ClassVar[int] = 49
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    dims: Four = each(U32, 4)
    output: View = nested(View)
    left: View = nested(View)
    right: View = nested(View)
    multiplier: int = scalar(U32)
    shift: int = scalar(U8)
    lo: int = scalar(I32)
    hi: int = scalar(I32)


@frozen
class Rescale:
    """One operand times ``multiplier`` / 2**``shift``, rounded half up and clamped."""

    OPCODE: ClassVar[int] = 50
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    dims: Four = each(U32, 4)
    output: View = nested(View)
    input: View = nested(View)
    multiplier: int = scalar(U32)
    shift: int = scalar(U8)
    lo: int = scalar(I32)
    hi: int = scalar(I32)


@frozen
class Clamp:
    """One operand clamped to [lo, hi]."""

    OPCODE: ClassVar[int] = 51
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    dims: Four = each(U32, 4)
    output: View = nested(View)
    input: View = nested(View)
    lo: int = scalar(I32)
    hi: int = scalar(I32)


@frozen
class Table:
    """Look up one operand: 256 entries (entry 0 for -128) or 513 interpolated ones, of ``entry_dtype``.

    With ``channel_stride`` > 0 element (a, b, c, d) uses the table at ``table`` + d * ``channel_stride``.
    """

    OPCODE: ClassVar[int] = 52
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    dims: Four = each(U32, 4)
    output: View = nested(View)
    input: View = nested(View)
    table: int = scalar(U32)
    entries: int = scalar(U16)
    entry_dtype: int = scalar(U8)
    channel_stride: int = scalar(U32)


@frozen
class Copy:
    """Move elements within SRAM, unchanged."""

    OPCODE: ClassVar[int] = 53
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    dims: Four = each(U32, 4)
    output: View = nested(View)
    input: View = nested(View)


@frozen
class Fill:
    """Write one value to every element."""

    OPCODE: ClassVar[int] = 54
    ENGINE: ClassVar[str] = "vector"
    waits: Four = each(U32, 4)
    dims: Four = each(U32, 4)
    output: View = nested(View)
    value: int = scalar(I32)


Instruction: TypeAlias = (
    Load | Store | Conv | Deconv | Pool | Resize | Add | Mul | Rescale | Clamp | Table | Copy | Fill
)
INSTRUCTIONS: tuple[type[Instruction], ...] = (
    Load,
    Store,
    Conv,
    Deconv,
    Pool,
    Resize,
    Add,
    Mul,
    Rescale,
    Clamp,
    Table,
    Copy,
    Fill,
)
