"""Every route of the matrix product is exact, and a faulty int8 multiply is found out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from carkp_bpu.simulator import gemm
from carkp_bpu.simulator.lowering.base import Scratch


def product(rows: np.ndarray, weight: np.ndarray, exact_int8: bool = True) -> tuple[np.ndarray, str]:
    factor = gemm.prepare(weight, str(rows.dtype), exact_int8)
    run, acc = factor.bind(rows, Scratch(1 << 10))
    run()
    sums = acc.reshape(rows.shape[0], -1).astype(np.int64) + factor.extra
    return sums, factor.route


@pytest.mark.parametrize(("dtype", "exact_int8", "route"), [
    ("int8", True, "bytes"), ("int16", True, "halves"), ("int8", False, "floats"), ("int16", False, "doubles"),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 1, 12), (9, 31, 33), (5, 27, 16), (33, 130, 7), (4, 0, 3)])
def test_routes_are_exact(dtype, exact_int8, route, shape):
    rng = np.random.default_rng(1)
    limits = np.iinfo(dtype)
    rows = rng.integers(limits.min, limits.max + 1, shape[:2]).astype(dtype)
    rows[:1] = limits.min
    weight = rng.integers(-127, 128, shape[1:], dtype=np.int8)
    found, taken = product(rows, weight, exact_int8)
    assert taken == route
    np.testing.assert_array_equal(found, rows.astype(np.int64) @ weight.astype(np.int64))


def test_sums_that_may_leave_int32_take_doubles():
    weight = np.full((600, 2), 127, np.int8)
    rows = np.full((3, 600), -32768, np.int16)
    found, route = product(rows, weight)
    assert route == "doubles"
    assert (found == -32768 * 127 * 600).all()
    assert abs(int(found[0, 0])) > gemm.INT32_MAX


@pytest.mark.parametrize(("depth", "route"), [(1032, "floats"), (1033, "doubles")])
def test_float32_is_taken_only_where_its_sums_are_proven(depth, route):
    """1032 products of -128 and 127 are the last ones below 2**24."""
    weight, rows = np.full((depth, 3), 127, np.int8), np.full((2, depth), -128, np.int8)
    rows[1, ::2] = 127
    found, taken = product(rows, weight, exact_int8=False)
    assert taken == route
    np.testing.assert_array_equal(found, rows.astype(np.int64) @ weight.astype(np.int64))


def test_float32_products_are_exact_in_every_precision_of_torch():
    rng = np.random.default_rng(0)
    weight, rows = rng.integers(-127, 128, (300, 20), np.int8), rng.integers(-128, 128, (40, 300), np.int8)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision)
            found, route = product(rows, weight, exact_int8=False)
            assert route == "floats"
            np.testing.assert_array_equal(found, rows.astype(np.int64) @ weight.astype(np.int64))
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_saturating_multiply_is_found_out():
    def saturating(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        # What processors without a dot-product instruction do: unsigned by signed, pairs added in 16 bits.
        products = (a.int()[:, :, None] + 128) * b.int()[None]
        products = torch.nn.functional.pad(products, (0, 0, 0, products.shape[1] % 2))
        sums = (products[:, ::2] + products[:, 1::2]).clamp(-32768, 32767).sum(1, dtype=torch.int32)
        return sums - 128 * b.sum(0, dtype=torch.int32)

    assert not gemm.int8_multiply_is_exact(saturating)


def test_a_lossy_multiply_is_found_out():
    def bfloat(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a.bfloat16() @ b.bfloat16()).int()

    assert not gemm.int8_multiply_is_exact(bfloat)


def test_a_missing_multiply_is_found_out():
    def missing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    assert not gemm.int8_multiply_is_exact(missing)
    assert not gemm.int8_multiply_is_exact(None)


def test_an_exact_multiply_passes():
    assert gemm.int8_multiply_is_exact(lambda a, b: (a.double() @ b.double()).int())


def test_the_fallback_is_said_once(monkeypatch):
    monkeypatch.delattr(torch, "_int_mm", raising=False)
    gemm.exact_int8.cache_clear()
    try:
        with pytest.warns(UserWarning, match="float products"):
            assert not gemm.exact_int8()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not gemm.exact_int8()
    finally:
        gemm.exact_int8.cache_clear()
