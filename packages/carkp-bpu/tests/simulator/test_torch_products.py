"""Products on a device are exact on every route, whatever the sizes, and a device that miscounts is found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from carkp_bpu.simulator import torch_products
from carkp_bpu.simulator.torch_products import Weights, device_multiplies_exactly

CPU = torch.device("cpu")


@pytest.mark.parametrize(("dtype", "exact", "route"), [
    ("int8", True, "bytes"), ("int16", True, "halves"), ("int8", False, "floats"), ("int16", False, "doubles"),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 1, 12), (5, 27, 16), (33, 130, 7), (4, 0, 3)])
def test_routes_are_exact(dtype, exact, route, shape):
    rng = np.random.default_rng(1)
    limits = np.iinfo(dtype)
    rows = rng.integers(limits.min, limits.max + 1, shape[:2]).astype(dtype)
    rows[:1] = limits.min
    weight = rng.integers(-127, 128, shape[1:], dtype=np.int8)
    weights = Weights.of(weight, dtype, CPU, exact)
    assert weights.route == route
    found = weights.sums(torch.from_numpy(rows))
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), rows.astype(np.int64) @ weight.astype(np.int64))


def test_int8_products_meet_what_cublas_asks_for(monkeypatch):
    """More than 16 rows, products and channels in multiples of 8."""
    asked = []
    real = torch._int_mm

    def strict(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        asked.append((*a.shape, b.shape[1]))
        assert a.shape[0] > 16
        assert a.shape[1] % 8 == b.shape[1] % 8 == 0
        return real(a, b)

    monkeypatch.setattr(torch, "_int_mm", strict)
    for shape in ((1, 3, 5), (17, 64, 64), (40, 9, 12)):
        weight, rows = np.ones(shape[1:], np.int8), torch.ones(shape[:2], dtype=torch.int8)
        assert (Weights.of(weight, "int8", CPU, True).sums(rows) == shape[1]).all()
    assert len(asked) == 3


def test_a_device_that_miscounts_takes_floats(monkeypatch):
    device_multiplies_exactly.cache_clear()
    monkeypatch.setattr(torch_products, "int8_product", lambda a, b: (a.float() @ b.float()).int() + 1)
    try:
        assert not device_multiplies_exactly("cpu")
        assert Weights.of(np.ones((3, 4), np.int8), "int8", CPU).route == "floats"
    finally:
        device_multiplies_exactly.cache_clear()


def test_a_missing_multiply_is_found_out(monkeypatch):
    device_multiplies_exactly.cache_clear()
    monkeypatch.delattr(torch, "_int_mm", raising=False)
    try:
        assert not device_multiplies_exactly("cpu")
    finally:
        device_multiplies_exactly.cache_clear()
