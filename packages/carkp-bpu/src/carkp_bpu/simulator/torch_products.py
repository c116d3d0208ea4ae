"""Exact matrix products of small integers on any device of torch.

The routes are those of ``gemm``; here the int8 multiply of the device itself is tested, and what it asks of sizes is
met with zeros: cuBLAS wants more than 16 rows, and products and channels in multiples of 8.

Legend: ``P`` rows (pixels), ``K`` products in a sum, ``C`` output channels.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional

from carkp_bpu.simulator.gemm import Route, choose_route, int8_multiply_is_exact, largest_sum

Array = npt.NDArray[Any]

ROWS, MULTIPLE = 32, 16


@functools.cache
def device_multiplies_exactly(device: str) -> bool:
    """Whether the device's int8 multiply is there and exact on worst cases; tested once in a process."""
    if not hasattr(torch, "_int_mm"):
        return False
    return int8_multiply_is_exact(lambda a, b: int8_product(a.to(device), _padded(b.to(device))).cpu()[:, : b.shape[1]])


def _padded(weight: Tensor) -> Tensor:
    """[K, C] with zeros up to multiples of what devices ask for; an empty sum becomes a sum of zeros."""
    depth, channels = weight.shape
    return functional.pad(weight, (0, -channels % MULTIPLE, 0, -depth % MULTIPLE if depth else MULTIPLE))


def int8_product(rows: Tensor, weight: Tensor) -> Tensor:
    """int8 [P, K] times padded int8 [K', C'], int32 [P, C']."""
    count, depth = rows.shape
    rows = functional.pad(rows, (0, weight.shape[0] - depth, 0, max(0, ROWS - count)))
    return torch._int_mm(rows.contiguous(), weight)[:count]


@frozen(eq=False)
class Weights:
    """A weight matrix on its device, made ready for its route."""

    route: Route
    matrix: Tensor
    channels: int

    @classmethod
    def of(cls, weight: Array, input_dtype: str, device: torch.device, int8_multiply: bool | None = None) -> Weights:
        """Choose the route for int8 [K, C]; ``int8_multiply`` overrides what the device's self-test says."""
        exact = device_multiplies_exactly(str(device)) if int8_multiply is None else int8_multiply
        route = choose_route(largest_sum(weight, input_dtype), input_dtype, exact)
        matrix = torch.from_numpy(np.ascontiguousarray(weight, dtype=np.int8)).to(device)
        if route in ("bytes", "halves"):
            matrix = _padded(matrix).contiguous()
        else:
            matrix = matrix.to(torch.float32 if route == "floats" else torch.float64)
        return cls(route, matrix, weight.shape[1])

    def sums(self, rows: Tensor) -> Tensor:
        """The product with ``rows`` [P, K], int64 [P, C]."""
        if self.route == "bytes":
            return int8_product(rows, self.matrix)[:, : self.channels].long()
        if self.route == "halves":
            high, low = (rows >> 8).to(torch.int8), ((rows & 255) - 128).to(torch.int8)
            sums = 256 * int8_product(high, self.matrix).long() + int8_product(low, self.matrix)
            return (sums + 128 * self.matrix.long().sum(0))[:, : self.channels]
        return (rows.to(self.matrix.dtype) @ self.matrix).long()
