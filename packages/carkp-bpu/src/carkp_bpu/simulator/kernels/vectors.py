"""Building blocks of the vector kernels: intrinsics made of 512-bit instructions, for CPUs with AVX-512 VNNI.

``vpdpbusd`` adds four products of an unsigned and a signed byte to each 32-bit sum, without saturating. Activations
are made unsigned by flipping their highest bit, which adds 128; what that adds to a sum, 128 times the sum of its
weights, is a constant that the caller takes from the offset.

Rescaling runs in float64: ``floor(sum * factor + offset)`` with ``factor = multiplier / 2**shift``, one fused
multiply-add. Whoever calls has proven that it is exact (``simulator.packing``).

All arguments are addresses and numbers, int64 or float64. Nothing is checked; up to 64 bytes beyond a row may be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

I8, I32, I64, F64 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.DoubleType()
LANES = 16
#: Flips the highest bit of four bytes.
SIGN_BITS = 0x80808080


def _vector(element: Any, count: int) -> Any:
    return ir.VectorType(element, count)


def _load(builder: Any, type_: Any, address: Any, offset: int = 0) -> Any:
    where = builder.add(address, I64(offset)) if offset else address
    value = builder.load(builder.inttoptr(where, type_.as_pointer()))
    value.align = 1
    return value


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def _call(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, signature, name)
    return builder.call(function, list(arguments))


def _splat(builder: Any, scalar: Any, count: int) -> Any:
    vector = builder.insert_element(ir.Constant(_vector(scalar.type, count), ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(vector, vector, ir.Constant(_vector(I32, count), [0] * count))


def _shuffle(builder: Any, first: Any, second: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(_vector(I32, len(order)), list(order)))


def _dot(builder: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    width = 32 * acc.type.count
    return _call(builder, f"llvm.x86.avx512.vpdpbusd.{width}", acc.type, (acc, unsigned, signed))


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return _call(builder, f"llvm.fma.v{x.type.count}f64", x.type, (x, y, z))


def _floor(builder: Any, x: Any) -> Any:
    return _call(builder, f"llvm.floor.v{x.type.count}f64", x.type, (x,))


def _clamped(builder: Any, x: Any, lo: Any, hi: Any) -> Any:
    kind = f"v{x.type.count}i{x.type.element.width}"
    return _call(builder, f"llvm.smin.{kind}", x.type, (_call(builder, f"llvm.smax.{kind}", x.type, (x, lo)), hi))


def _halves(builder: Any, x: Any) -> list[Any]:
    """A vector as parts of at most 8 elements, as many as there are float64 in 512 bits."""
    if x.type.count <= 8:
        return [x]
    return [_shuffle(builder, x, x, range(start, start + 8)) for start in range(0, x.type.count, 8)]


def _count_up(builder: Any, count: Any, values: Sequence[Any], body: Any) -> list[Any]:
    """``for i in range(count): values = body(i, values)``; ``count`` is at least 1."""
    before, loop = builder.block, builder.append_basic_block("loop")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(I64)
    phis = [builder.phi(value.type) for value in values]
    results = body(index, phis)
    following = builder.add(index, I64(1))
    last = builder.block
    for phi, start, result in zip((index, *phis), (I64(0), *values), (following, *results), strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(result, last)
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    return results


def _tile(rows: int, vectors: int, residual: bool) -> Any:
    """An intrinsic: ``rows`` x (16 ``vectors``) int8 outputs of a matrix product, rescaled and clamped.

    ``x`` and ``x_step``: address of the first row and bytes between rows; ``depth``: products of a sum, in fours;
    ``weight``: int8 [depth, 16 vectors, 4]; ``tables``: float64 factors [channels], ``tables_step`` bytes before the
    offsets; ``out`` and ``out_step`` likewise; ``mask``: which of the last 16 channels are stored. With a residual:
    ``other``, spaced like ``out``, and its factor, offset and sign.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        x, x_step, depth, weight, tables, tables_step, out, out_step, lo, hi, mask, *term = arguments
        starts = [builder.add(x, builder.mul(x_step, I64(row))) for row in range(rows)]

        def multiply(k: Any, sums: list[Any]) -> list[Any]:
            here = builder.add(weight, builder.mul(k, I64(64 * vectors)))
            columns = [_load(builder, _vector(I32, LANES), here, 64 * v) for v in range(vectors)]
            result = []
            for row in range(rows):
                four = _load(builder, I32, builder.add(starts[row], builder.mul(k, I64(4))))
                # Before spreading: LLVM 22 never ends on a vector of equal bytes that is flipped.
                spread = _splat(builder, builder.xor(four, I32(SIGN_BITS)), LANES)
                result += [_dot(builder, sums[row * vectors + v], spread, columns[v]) for v in range(vectors)]
            return result

        zero = ir.Constant(_vector(I32, LANES), [0] * LANES)
        sums = _count_up(builder, depth, [zero] * (rows * vectors), multiply)
        bounds = [_splat(builder, builder.trunc(bound, I8), LANES) for bound in (lo, hi)]
        last = builder.bitcast(builder.trunc(mask, ir.IntType(16)), _vector(ir.IntType(1), LANES))
        for v in range(vectors):
            parts = range(2)
            factors = [_load(builder, _vector(F64, 8), tables, 128 * v + 64 * p) for p in parts]
            behind = builder.add(tables, tables_step)
            offsets = [_load(builder, _vector(F64, 8), behind, 128 * v + 64 * p) for p in parts]
            for row in range(rows):
                place = builder.add(builder.mul(out_step, I64(row)), I64(16 * v))
                extra: list[Any] = [None, None]
                if residual:
                    other = _load(builder, _vector(I8, LANES), builder.add(term[0], place))
                    extra = [_term(builder, half, term) for half in _halves(builder, other)]
                pieces = [
                    _rescaled(builder, half, factors[p], offsets[p], extra[p])
                    for p, half in enumerate(_halves(builder, sums[row * vectors + v]))
                ]
                small = _clamped(builder, _saturated(builder, _shuffle(builder, *pieces, range(LANES))), *bounds)
                target = builder.add(out, place)
                if v < vectors - 1:
                    _store(builder, small, target)
                else:
                    _masked_store(builder, small, target, last)
        return context.get_dummy_value()

    @intrinsic
    def tile(
        typing: Any, x: Any, x_step: Any, depth: Any, weight: Any, tables: Any, tables_step: Any, out: Any,
        out_step: Any, lo: Any, hi: Any, mask: Any, other: Any, factor: Any, offset: Any, sign: Any,
    ) -> Any:  # fmt: skip
        return types.void(*[types.int64] * 12, *[types.float64] * 3), emit

    return tile


def _saturated(builder: Any, x: Any) -> Any:
    """16 int32 as int8."""
    small = _vector(I8, LANES)
    passed, mask = ir.Constant(small, [0] * LANES), ir.Constant(ir.IntType(16), 0xFFFF)
    return _call(builder, "llvm.x86.avx512.mask.pmovs.db.512", small, (x, passed, mask))


def _rescaled(builder: Any, sums: Any, factor: Any, offset: Any, extra: Any) -> Any:
    """int32 sums to int32 results, ``extra`` being the float64 value of an add's other term."""
    value = _floor(builder, _fma(builder, builder.sitofp(sums, factor.type), factor, offset))
    if extra is not None:
        # Drop the 15 fractional bits, rounding half up.
        fraction, half = (_splat(builder, F64(number), value.type.count) for number in (2.0**-15, 0.5))
        value = _floor(builder, _fma(builder, builder.fadd(value, extra), fraction, half))
    return builder.fptosi(value, sums.type)


def _term(builder: Any, other: Any, term: Sequence[Any]) -> Any:
    """The residual's term, with 15 fractional bits."""
    factor, offset, sign = (_splat(builder, number, other.type.count) for number in term[1:])
    value = _fma(builder, builder.sitofp(other, factor.type), factor, offset)
    return builder.fmul(_floor(builder, value), sign)


def _depthwise(width: int) -> Any:
    """An intrinsic: ``width`` channels of one pixel of a depthwise convolution, rescaled and clamped.

    ``taps``: address of int64 addresses, 4 ``quads`` of them; ``channel`` is added to each. ``weight``: int8
    [quads, 4, width / 4, 4]; ``tables``: float64 factors, then offsets, [4, width / 4] each: in the order that
    interleaving four rows of bytes within 128 bits makes, and that packing sums undoes.
    """
    lanes = width // 4
    pairs = {8: [], 16: []}  # type: dict[int, list[list[int]]]
    for bits, order in pairs.items():
        elements = 128 // bits
        for begin in (0, elements // 2):
            pick = range(begin, begin + elements // 2)
            blocks = range(0, width * 8 // bits, elements)
            order.append([i for block in blocks for e in pick for i in (block + e, width * 8 // bits + block + e)])

    def interleave(builder: Any, first: Any, second: Any, bits: int) -> list[Any]:
        type_ = _vector(ir.IntType(bits), width * 8 // bits)
        a, b = builder.bitcast(first, type_), builder.bitcast(second, type_)
        return [_shuffle(builder, a, b, order) for order in pairs[bits]]

    def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        taps, quads, channel, weight, tables, out, lo, hi, mask = arguments
        flip = ir.Constant(_vector(I8, width), [0x80] * width)

        def multiply(quad: Any, sums: list[Any]) -> list[Any]:
            where = builder.add(taps, builder.mul(quad, I64(32)))
            rows = []
            for tap in range(4):
                start = builder.add(_load(builder, I64, where, 8 * tap), channel)
                rows.append(builder.xor(_load(builder, _vector(I8, width), start), flip))
            early, late = interleave(builder, rows[0], rows[1], 8), interleave(builder, rows[2], rows[3], 8)
            fours = [four for pair in zip(early, late, strict=True) for four in interleave(builder, *pair, 16)]
            here = builder.add(weight, builder.mul(quad, I64(4 * width)))
            columns = [_load(builder, _vector(I32, lanes), here, width * j) for j in range(4)]
            spread = [builder.bitcast(four, _vector(I32, lanes)) for four in fours]
            return [_dot(builder, *each) for each in zip(sums, spread, columns, strict=True)]

        zero = ir.Constant(_vector(I32, lanes), [0] * lanes)
        sums = _count_up(builder, quads, [zero] * 4, multiply)
        results = []
        for j, total in enumerate(sums):
            pieces = []
            for p, half in enumerate(_halves(builder, total)):
                at = 8 * (lanes * j + 8 * p)
                factor, offset = (
                    _load(builder, _vector(F64, half.type.count), tables, at + 8 * width * part) for part in (0, 1)
                )
                pieces.append(_rescaled(builder, half, factor, offset, None))
            results.append(pieces[0] if len(pieces) == 1 else _shuffle(builder, *pieces, range(lanes)))
        wide = [_pack(builder, *results[0:2], 32), _pack(builder, *results[2:4], 32)]
        packed = _pack(builder, *wide, 16)
        bounds = [_splat(builder, builder.trunc(bound, I8), width) for bound in (lo, hi)]
        small = _clamped(builder, packed, *bounds)
        if width > LANES:
            _store(builder, small, out)
        else:
            bits = builder.bitcast(builder.trunc(mask, ir.IntType(16)), _vector(ir.IntType(1), LANES))
            _masked_store(builder, small, out, bits)
        return context.get_dummy_value()

    @intrinsic
    def pixel(
        typing: Any, taps: Any, quads: Any, channel: Any, weight: Any, tables: Any, out: Any, lo: Any, hi: Any,
        mask: Any,
    ) -> Any:  # fmt: skip
        return types.void(*[types.int64] * 9), emit

    return pixel


def _masked_store(builder: Any, value: Any, address: Any, mask: Any) -> None:
    pointer = builder.inttoptr(address, value.type.as_pointer())
    name = "llvm.masked.store.v16i8.p0"
    signature = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, I32, mask.type])
    function = builder.module.globals.get(name) or ir.Function(builder.module, signature, name)
    builder.call(function, [value, pointer, I32(1), mask])


def _pack(builder: Any, first: Any, second: Any, bits: int) -> Any:
    """Two vectors to one of half the element size, saturating, within 128 bits."""
    name = "packssdw" if bits == 32 else "packsswb"
    width = bits * first.type.count
    set_name = {128: f"sse2.{name}.128", 256: f"avx2.{name}", 512: f"avx512.{name}.512"}[width]
    result = _vector(ir.IntType(bits // 2), 2 * first.type.count)
    return _call(builder, f"llvm.x86.{set_name}", result, (first, second))


@intrinsic
def copy_16(typing: Any, source: Any, target: Any) -> Any:
    """Copy 16 bytes."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        _store(builder, _load(builder, _vector(I8, 16), arguments[0]), arguments[1])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def copy_masked(typing: Any, source: Any, target: Any, mask: Any) -> Any:
    """Copy those of 16 bytes whose bit of ``mask`` is set; all 16 are read."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        bits = builder.bitcast(builder.trunc(arguments[2], ir.IntType(16)), _vector(ir.IntType(1), LANES))
        _masked_store(builder, _load(builder, _vector(I8, LANES), arguments[0]), arguments[1], bits)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def put_address(typing: Any, table: Any, index: Any, value: Any) -> Any:
    """``table[index] = value`` in a table of int64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        table_address, at, number = arguments
        _store(builder, number, builder.add(table_address, builder.mul(at, I64(8))))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def get_address(typing: Any, table: Any, index: Any) -> Any:
    """``table[index]`` of a table of int64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        table_address, at = arguments
        return _load(builder, I64, builder.add(table_address, builder.mul(at, I64(8))))

    return types.int64(types.int64, types.int64), emit


depthwise_64, depthwise_32, depthwise_16 = (_depthwise(width) for width in (64, 32, 16))
tile_6x4, tile_8x3, tile_12x2, tile_14x1 = (_tile(*size, False) for size in ((6, 4), (8, 3), (12, 2), (14, 1)))
tile_1x4, tile_1x3, tile_1x2, tile_1x1 = (_tile(1, vectors, False) for vectors in (4, 3, 2, 1))
sum_tile_6x4, sum_tile_8x3, sum_tile_12x2, sum_tile_14x1 = (
    _tile(*size, True) for size in ((6, 4), (8, 3), (12, 2), (14, 1))
)
sum_tile_1x4, sum_tile_1x3, sum_tile_1x2, sum_tile_1x1 = (_tile(1, vectors, True) for vectors in (4, 3, 2, 1))
