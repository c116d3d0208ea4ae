"""A fixed sample of TOSA programs of carkp's own: random shapes, numbers and data from seeds.

Most are chains as the converter fuses them: a convolution with its rescale and clamp, an add with the rescales of its
terms. ``sample.json`` holds, for each program, its digest and the digest of what TOSA's reference model computed for
it; ``sample_digests.py`` writes and checks that file.

Numpy only: both environments make the same programs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict

from conformance.draft import RANGE, Draft
from conformance.program import Array, Program, Tensor

DIGESTS = Path(__file__).with_name("sample.json")

#: Multiplier and shift that drop an add's 15 fractional bits, and an interpolated table's 7.
_DROP_ADD, _DROP_TABLE = ([1 << 30], [45]), ([1 << 30], [37])


def sample_programs() -> Iterator[Program]:
    """Every program of the sample, its inputs and constants filled in."""
    index = itertools.count()
    for make, arguments, count in _CASES:
        for number in itertools.islice(index, count):
            draft = Draft(np.random.default_rng((2026, number)))
            make(draft, *arguments)
            label = "_".join((make.__name__.strip("_"), *arguments)).lower()
            yield draft.finish(f"{number:03d}_{label}")


def program_digest(program: Program) -> str:
    """SHA-256 of a program and its values."""
    header = [asdict(operator) for operator in program.operators]
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(values_digest(program.values).encode())
    return digest.hexdigest()


def values_digest(values: Mapping[str, Array]) -> str:
    """SHA-256 of named arrays: types, shapes and little-endian contents."""
    digest = hashlib.sha256()
    for name in sorted(values):
        value = values[name]
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def committed_digests() -> dict[str, dict[str, str]]:
    """``program`` and ``expected`` of each program by its name, as ``sample.json`` has them."""
    loaded: dict[str, dict[str, str]] = json.loads(DIGESTS.read_text())
    return loaded


def _layer(d: Draft, kind: str, dtype: str) -> None:
    """A convolution of any kind, rescaled per channel; clamped as often as not."""
    total, magnitude = _convolution(d, kind, dtype)
    outputs = d.tensors[total].shape[3]
    y = d.rescale(total, dtype, d.factors(total, outputs, magnitude, RANGE[dtype][1]))
    if d.number(0, 1):
        d.clamp(y)


def _residual(d: Draft, operator: str) -> None:
    """A convolution and another tensor, both with 15 fractional bits, summed."""
    total, magnitude = _convolution(d, "CONV2D", "int8")
    kind = d.tensors[total]
    other = d.input(kind.shape, "int8")
    y = d.rescale(total, "int32", d.factors(total, kind.shape[3], magnitude, 127 << 15))
    z = d.rescale(other, "int32", d.factors(other, 1, 127, 127 << 15))
    added = d.operator(operator, [y, z], kind)
    d.clamp(d.rescale(added, "int8", _DROP_ADD))


def _sum(d: Draft, operator: str, dtype: str) -> None:
    """Two tensors, one perhaps broadcast, rescaled to 15 fractional bits and summed."""
    shape = _shape(d)
    other = [size if d.number(0, 2) else 1 for size in shape]
    names = [d.input(shape, dtype), d.input(other, dtype)]
    top = RANGE[dtype][1]
    terms = [d.rescale(name, "int32", d.factors(name, 1, top, min(top, 8000) << 15)) for name in names]
    added = d.operator(operator, terms, Tensor(tuple(shape), "int32"))
    d.rescale(added, dtype, _DROP_ADD)


def _product(d: Draft, dtype: str) -> None:
    """Two tensors multiplied and rescaled; a product of int32 is only shifted."""
    shape = _shape(d)
    shift = d.number(0, 1) * d.number(1, 31) if dtype == "int32" else 0
    bound = int(2 ** ((31 + shift) / 2)) - 1 if dtype == "int32" else RANGE[dtype][1]
    names = [d.input(shape, dtype, (-bound, bound)) for _ in "xy"]
    out = Tensor(tuple(shape), "int32")
    total = d.operator("MUL", [*names, d.constant([shift], "int8")], out)
    if dtype != "int32":
        d.rescale(total, dtype, d.factors(total, 1, bound * bound, bound))


def _join(d: Draft, dtype: str) -> None:
    """Tensors rescaled and concatenated."""
    shape = _shape(d)
    axis = d.number(0, len(shape) - 1)
    terms, total = [], 0
    for _ in range(d.number(2, 3)):
        size = d.number(1, 5)
        x = d.input([*shape[:axis], size, *shape[axis + 1 :]], dtype)
        terms.append(d.rescale(x, dtype, d.factors(x, 1, RANGE[dtype][1], RANGE[dtype][1])))
        total += size
    d.operator("CONCAT", terms, Tensor((*shape[:axis], total, *shape[axis + 1 :]), dtype), axis=axis)


def _pool(d: Draft, operator: str, dtype: str) -> None:
    kernel, stride = d.numbers(1, 6), d.numbers(1, 3)
    pads = [tuple(d.numbers(0, k - 1)) for k in kernel]
    sizes = [_window(d, k, s, pad) for k, s, pad in zip(kernel, stride, pads, strict=True)]
    x = d.input((d.number(1, 2), sizes[0][0], sizes[1][0], d.number(1, 5)), dtype)
    n, _, _, channels = d.tensors[x].shape
    options: dict[str, Any] = {"kernel": kernel, "stride": stride, "pad": [p for pair in pads for p in pair]}
    out = Tensor((n, sizes[0][1], sizes[1][1], channels), dtype)
    if operator == "MAX_POOL2D":
        d.operator(operator, [x], out, **options, nan_mode="PROPAGATE")
    else:
        d.operator(operator, [x, *d.zeros(dtype, dtype)], out, **options, acc_type="INT32")


def _resized(d: Draft, mode: str, dtype: str) -> None:
    """Any ratio with offsets and borders; a bilinear sum is rescaled."""
    geometry = [_resize_axis(d) for _ in "yx"]
    (height, out_h, *_), (width, out_w, *_) = geometry
    x = d.input((1, height, width, d.number(1, 4)), dtype)
    scale = [number for _, _, numerator, denominator, _, _ in geometry for number in (numerator, denominator)]
    numbers = (scale, [g[4] for g in geometry], [g[5] for g in geometry])
    wide = "int32" if mode == "BILINEAR" else dtype
    out = Tensor((1, out_h, out_w, d.tensors[x].shape[3]), wide)
    y = d.operator("RESIZE", [x, *(d.constant(value, "shape") for value in numbers)], out, mode=mode)
    if mode == "BILINEAR":
        d.rescale(y, dtype, d.factors(y, 1, scale[0] * scale[2] * 127, 127))


def _resize_axis(d: Draft) -> tuple[int, int, int, int, int, int]:
    """Size, output size, numerator, denominator, offset, border; the output has no rest, as TOSA asks."""
    size, numerator, denominator = d.number(1, 9), d.number(1, 12), d.number(1, 9)
    offset = d.number(-numerator + 1, numerator)
    span = (size - 1) * numerator - offset
    # The border in (-numerator, numerator) that makes the span a multiple of the denominator, or another try.
    border = -span % denominator
    if border >= numerator or span + border < 0:
        return _resize_axis(d)
    return size, (span + border) // denominator + 1, numerator, denominator, offset, border


def _rescaled(d: Draft, source: str, dtype: str) -> None:
    """Multipliers of any size, per channel as often as not."""
    shape = _shape(d)
    count = shape[-1] if d.number(0, 1) else 1
    multiplier = d.rng.integers(1 << 30, 1 << 31, count) >> d.rng.integers(0, 21, count)
    ratio = min(RANGE[dtype][1] / RANGE[source][1], 8.0) * d.rng.uniform(0.3, 2.0, count)
    # TOSA asks that the value lies within 2**(shift - 1).
    least = RANGE[source][1].bit_length() + 2
    shift = np.clip(np.rint(np.log2(multiplier / ratio)), least, 62).astype(np.int64)
    d.rescale(d.input(shape, source), dtype, (multiplier.tolist(), shift.tolist()))


def _looked_up(d: Draft, dtype: str) -> None:
    """A table; an interpolated one drops its 7 fractional bits."""
    shape = _shape(d)
    length, wide = (256, "int8") if dtype == "int8" else (513, "int32")
    # TOSA asks that neighbouring entries differ by an int16.
    limits = RANGE["int8"] if dtype == "int8" else (-16384, 16383)
    table = d.constant(d.data((length,), *limits), dtype)
    y = d.operator("TABLE", [d.input(shape, dtype), table], Tensor(tuple(shape), wide))
    if dtype == "int16":
        d.rescale(y, dtype, _DROP_TABLE)


def _moved(d: Draft, operator: str, dtype: str) -> None:
    """Clamp, pad, slice, reshape or transpose of any rank."""
    shape = _shape(d)
    x = d.input(shape, dtype)
    if operator == "CLAMP":
        d.clamp(x)
    elif operator == "PAD":
        pads = np.array(d.numbers(0, 3, 2 * len(shape))).reshape(-1, 2)
        inputs = [x, d.constant(pads.reshape(-1), "shape"), d.constant([d.number(*RANGE[dtype])], dtype)]
        d.operator(operator, inputs, Tensor(tuple((np.array(shape) + pads.sum(axis=1)).tolist()), dtype))
    elif operator == "SLICE":
        start = [d.number(0, size - 1) for size in shape]
        size = [d.number(1, whole - first) for whole, first in zip(shape, start, strict=True)]
        d.operator(operator, [x, d.constant(start, "shape"), d.constant(size, "shape")], Tensor(tuple(size), dtype))
    elif operator == "RESHAPE":
        target = [*shape[::-1], 1]
        d.operator(operator, [x, d.constant(target, "shape")], Tensor(tuple(target), dtype))
    else:
        order = d.rng.permutation(len(shape)).tolist()
        d.operator(operator, [x], Tensor(tuple(shape[axis] for axis in order), dtype), perms=order)


def _shape(d: Draft) -> list[int]:
    """Any rank, some hundred elements."""
    rank = d.number(1, 5)
    return d.numbers(1, 2 * round(200 ** (1 / rank)), rank)


def _convolution(d: Draft, kind: str, dtype: str) -> tuple[str, float]:
    """A convolution up to its sum, and the sums' usual magnitude."""
    channels, outputs = d.number(1, 9), d.number(1, 9)
    kernel, stride = d.numbers(1, 5), d.numbers(1, 3)
    options: dict[str, Any] = {"stride": stride}
    if kind == "TRANSPOSE_CONV2D":
        kernel = d.numbers(2, 14)
        out_pads = [[d.number(-min(k - 1, 3), 3) for _ in range(2)] for k in kernel]
        sizes = [_transposed(d, k, s, pad) for k, s, pad in zip(kernel, stride, out_pads, strict=True)]
        options["out_pad"] = [pad for pair in out_pads for pad in pair]
        weight = d.data((outputs, *kernel, channels), -127, 127)
    else:
        dilation, pads = d.numbers(1, 2), [tuple(d.numbers(0, k)) for k in kernel]
        spans = [(k - 1) * step + 1 for k, step in zip(kernel, dilation, strict=True)]
        sizes = [_window(d, k, s, pad) for k, s, pad in zip(spans, stride, pads, strict=True)]
        options |= {"pad": [p for pair in pads for p in pair], "dilation": dilation}
        if kind == "CONV2D":
            weight = d.data((outputs, *kernel, channels), -127, 127)
        else:
            outputs = channels * d.number(1, 2)
            weight = d.data((*kernel, channels, outputs // channels), -127, 127)
    if dtype == "int16":  # so that the sum is proven to fit int32
        weight = weight // 8
    x = d.input((d.number(1, 2), sizes[0][0], sizes[1][0], channels), dtype)
    wide = "int48" if dtype == "int16" else "int32"
    bias = d.constant(d.data((outputs,), -20000, 20000), wide)
    inputs = [x, d.constant(weight, "int8"), bias, *d.zeros(dtype, "int8")]
    out = Tensor((d.tensors[x].shape[0], sizes[0][1], sizes[1][1], outputs), wide)
    total = d.operator(kind, inputs, out, **options, local_bound=False, acc_type=wide.upper())
    summed = weight.size / outputs
    return total, float(RANGE[dtype][1] * np.abs(weight).mean() * np.sqrt(summed))


def _window(d: Draft, span: int, stride: int, pads: Sequence[int]) -> tuple[int, int]:
    """Sizes of an input and an output that a sliding window fits without a rest, as TOSA asks."""
    out = d.number(2, 5)
    size = (out - 1) * stride - sum(pads) + span
    while size < 1:
        out, size = out + 1, size + stride
    return size, out


def _transposed(d: Draft, kernel: int, stride: int, out_pads: Sequence[int]) -> tuple[int, int]:
    size = d.number(1, 5)
    out = (size - 1) * stride + sum(out_pads) + kernel
    while out < 1:
        size, out = size + 1, out + stride
    return size, out


#: What makes a program, its arguments, and how many to make.
_CASES: tuple[tuple[Callable[..., None], tuple[str, ...], int], ...] = (
    (_layer, ("CONV2D", "int8"), 12),
    (_layer, ("CONV2D", "int16"), 5),
    (_layer, ("DEPTHWISE_CONV2D", "int8"), 6),
    (_layer, ("DEPTHWISE_CONV2D", "int16"), 3),
    (_layer, ("TRANSPOSE_CONV2D", "int8"), 10),
    (_layer, ("TRANSPOSE_CONV2D", "int16"), 4),
    (_residual, ("ADD",), 4),
    (_residual, ("SUB",), 2),
    (_sum, ("ADD", "int8"), 4),
    (_sum, ("SUB", "int8"), 3),
    (_sum, ("ADD", "int16"), 2),
    (_product, ("int8",), 3),
    (_product, ("int16",), 2),
    (_product, ("int32",), 3),
    (_join, ("int8",), 4),
    (_join, ("int16",), 2),
    (_pool, ("AVG_POOL2D", "int8"), 5),
    (_pool, ("AVG_POOL2D", "int16"), 2),
    (_pool, ("MAX_POOL2D", "int8"), 3),
    (_pool, ("MAX_POOL2D", "int16"), 2),
    (_resized, ("NEAREST", "int8"), 3),
    (_resized, ("NEAREST", "int16"), 1),
    (_resized, ("BILINEAR", "int8"), 5),
    (_rescaled, ("int8", "int8"), 2),
    (_rescaled, ("int16", "int8"), 2),
    (_rescaled, ("int32", "int8"), 3),
    (_rescaled, ("int32", "int16"), 2),
    (_rescaled, ("int8", "int32"), 1),
    (_looked_up, ("int8",), 2),
    (_looked_up, ("int16",), 3),
    (_moved, ("CLAMP", "int8"), 2),
    (_moved, ("PAD", "int8"), 2),
    (_moved, ("PAD", "int16"), 1),
    (_moved, ("SLICE", "int8"), 2),
    (_moved, ("RESHAPE", "int8"), 1),
    (_moved, ("TRANSPOSE", "int8"), 2),
)
