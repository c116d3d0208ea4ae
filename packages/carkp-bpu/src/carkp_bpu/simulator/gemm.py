"""Matrix products of small integers: four routes, each exact, chosen per layer by proof.

======== ========================= ============================================================ ============
route    rows                      how                                                          accumulators
======== ========================= ============================================================ ============
bytes    int8                      torch's int8 matrix multiply                                 int32
halves   int16                     two int8 products, of the high bytes and of the low bytes    int32
floats   int8                      float32, where the weights prove all sums below 2**24        float32
doubles  int8, int16               float64, where whole numbers below 2**53 are exact           float64
======== ========================= ============================================================ ============

``floats`` and ``doubles`` serve on a machine whose int8 multiply is missing or fails the self-test: some CPUs add
pairs of products in saturating 16-bit arithmetic. ``doubles`` also serves where sums may leave int32. An int8 value is
exact in bfloat16 and TF32 as well, so ``floats`` does not depend on torch's choice of precision.

Legend: ``P`` rows (pixels), ``K`` products in a sum, ``C`` output channels.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen

Array = npt.NDArray[Any]
Run = Callable[[], None]
Route = Literal["bytes", "halves", "floats", "doubles"]

INT32_MAX = (1 << 31) - 1
#: Whole numbers up to here are exact in float32.
FLOAT32_WHOLE = 1 << 24
#: ``256 * high + low`` of ``split_bytes`` differs from the value by 128, so its bound is that much larger.
_LARGEST = {"int8": 128, "int16": 32768 + 128}


class Scratch(Protocol):
    """Room that a step may use while it runs."""

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array: ...


@frozen(eq=False)
class Factor:
    """A weight matrix made ready for its route. ``extra`` [C] is to be added to each sum, as a bias is."""

    route: Route
    matrix: torch.Tensor
    extra: Array

    @property
    def depth(self) -> int:
        """K."""
        return int(self.matrix.shape[0])

    @property
    def channels(self) -> int:
        """C."""
        return int(self.matrix.shape[1])

    @property
    def acc_dtype(self) -> str:
        """The type of its accumulators."""
        return {"floats": "float32", "doubles": "float64"}.get(self.route, "int32")

    @property
    def bytes_per_row(self) -> int:
        """What one row costs in scratch besides its input: accumulators and conversions."""
        per_channel, per_product = {"bytes": (4, 0), "halves": (12, 2), "floats": (4, 4), "doubles": (8, 8)}[self.route]
        return per_channel * self.channels + per_product * self.depth

    def bind(self, rows: Array, scratch: Scratch) -> tuple[Run, Array]:
        """The product of ``rows`` [P, K] (contiguous) as a call, and where it leaves the sums (flat [P * C])."""
        acc = scratch.take((rows.shape[0], self.channels), self.acc_dtype)
        if not self.depth:  # a phase of a transposed convolution that no kernel row reaches
            return later(acc.fill, 0), acc.reshape(-1)
        return _BINDERS[self.route](rows, self.matrix, acc, scratch), acc.reshape(-1)


def prepare(weight: Array, input_dtype: str, exact_int8: bool) -> Factor:
    """Choose the route for ``weight`` int8 [K, C] times rows of ``input_dtype``, and make the weight ready."""
    route = choose_route(largest_sum(weight, input_dtype), input_dtype, exact_int8)
    extra = np.zeros(weight.shape[1], dtype=np.int64)
    if route == "halves":
        extra = 128 * weight.astype(np.int64).sum(axis=0)
    dtype = {"floats": np.float32, "doubles": np.float64}.get(route, np.int8)
    return Factor(route, torch.from_numpy(np.ascontiguousarray(weight, dtype=dtype)), extra)


def largest_sum(weight: Array, input_dtype: str) -> int:
    """The largest magnitude that a sum of products with ``weight`` [K, C] can reach, partial sums included."""
    return int(np.abs(weight.astype(np.int64)).sum(axis=0).max(initial=0)) * _LARGEST[input_dtype]


def choose_route(largest: int, input_dtype: str, exact_int8: bool) -> Route:
    """The fastest route that is exact for sums up to ``largest``."""
    if exact_int8 and largest <= INT32_MAX:
        return "bytes" if input_dtype == "int8" else "halves"
    return "floats" if input_dtype == "int8" and largest <= FLOAT32_WHOLE else "doubles"


def _bind_bytes(rows: Array, matrix: torch.Tensor, acc: Array, scratch: Scratch) -> Run:
    return later(torch._int_mm, torch.from_numpy(rows), matrix, out=torch.from_numpy(acc))


def _bind_halves(rows: Array, matrix: torch.Tensor, acc: Array, scratch: Scratch) -> Run:
    from carkp_bpu.simulator.kernels.gather import join_products, split_bytes

    high, low = scratch.take(rows.shape, np.int8), scratch.take(rows.shape, np.int8)
    acc_high, acc_low = scratch.take(acc.shape, np.int32), scratch.take(acc.shape, np.int32)
    calls: Sequence[Run] = (
        later(split_bytes, rows.reshape(-1), rows.size, high.reshape(-1), low.reshape(-1)),
        _bind_bytes(high, matrix, acc_high, scratch),
        _bind_bytes(low, matrix, acc_low, scratch),
        later(join_products, acc_high.reshape(-1), acc_low.reshape(-1), acc.size, acc.reshape(-1)),
    )
    return later(run_all, calls)


def _bind_reals(rows: Array, matrix: torch.Tensor, acc: Array, scratch: Scratch) -> Run:
    converted = scratch.take(rows.shape, acc.dtype)
    product = later(torch.mm, torch.from_numpy(converted), matrix, out=torch.from_numpy(acc))
    return later(run_all, (later(np.copyto, converted, rows), product))


_BINDERS: dict[str, Callable[[Array, torch.Tensor, Array, Scratch], Run]] = {
    "bytes": _bind_bytes,
    "halves": _bind_halves,
    "floats": _bind_reals,
    "doubles": _bind_reals,
}


def later(function: Callable[..., Any], *arguments: Any, **options: Any) -> Run:
    """A call to be made later."""
    return functools.partial(function, *arguments, **options)


def run_all(calls: Sequence[Run]) -> None:
    """Call each."""
    for call in calls:
        call()


@functools.cache
def exact_int8() -> bool:
    """Whether this machine's int8 matrix multiply is there and exact. Tested once in a process, warned of once."""
    exact = int8_multiply_is_exact(getattr(torch, "_int_mm", None))
    if not exact:
        message = "no exact int8 matrix multiply on this machine: simulating with float products, exact but slower"
        warnings.warn(message, stacklevel=2)
    return exact


#: (P, K, C) of the self-test: single elements and products, odd sizes, and sums long enough to leave 16 and 24 bits.
_TEST_SHAPES = ((1, 3, 1), (5, 1, 8), (17, 31, 33), (33, 27, 16), (64, 1152, 40), (7, 4096, 12))


def int8_multiply_is_exact(multiply: Callable[..., Any] | None) -> bool:
    """Whether ``multiply`` (int8 [P, K], int8 [K, C]) -> int32 [P, C] exists and is exact on worst cases."""
    if multiply is None:
        return False
    try:
        return all(_exact_on(multiply, a, b) for shape in _TEST_SHAPES for a, b in _worst_cases(*shape))
    except (RuntimeError, NotImplementedError, TypeError):
        return False


def _exact_on(multiply: Callable[..., Any], a: Array, b: Array) -> bool:
    found = multiply(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    # In float64, which is exact here and much faster than numpy's integers.
    return np.array_equal(found, a.astype(np.float64) @ b.astype(np.float64))


def _worst_cases(rows: int, depth: int, channels: int) -> Iterator[tuple[Array, Array]]:
    """Random values, then values whose pairs of products leave 16 bits on either side."""
    rng = np.random.default_rng(0)
    yield (
        rng.integers(-128, 128, (rows, depth), dtype=np.int8),
        rng.integers(-128, 128, (depth, channels), dtype=np.int8),
    )
    for a, b in ((-128, -128), (-128, -127), (-128, 127), (127, 127)):
        yield np.full((rows, depth), a, dtype=np.int8), np.full((depth, channels), b, dtype=np.int8)
