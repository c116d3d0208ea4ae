"""A TOSA program of random data as it grows. Numpy only: both environments make the same programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import field, frozen

from conformance.program import Array, Operator, Program, Tensor

RANGE = {"int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(1 << 31), (1 << 31) - 1)}


@frozen(eq=False)
class Draft:
    """Every method that adds something returns the name of the tensor it makes."""

    rng: np.random.Generator
    operators: list[Operator] = field(factory=list)
    tensors: dict[str, Tensor] = field(factory=dict)
    values: dict[str, Array] = field(factory=dict)
    inputs: list[str] = field(factory=list)

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def numbers(self, low: int, high: int, count: int = 2) -> list[int]:
        """Some whole numbers, one for each direction by default."""
        return [self.number(low, high) for _ in range(count)]

    def data(self, shape: Sequence[int], low: int, high: int) -> Array:
        """Random values with their extremes mixed in; int64."""
        value = self.rng.integers(low, high + 1, tuple(shape))
        value[self.rng.random(tuple(shape)) < 0.05] = low
        value[self.rng.random(tuple(shape)) < 0.05] = high
        return value

    def input(self, shape: Sequence[int], dtype: str, bounds: tuple[int, int] | None = None) -> str:
        """An input of random values, anywhere in its type unless bounded."""
        name = f"input-{len(self.inputs)}"
        self.inputs.append(name)
        self.tensors[name] = Tensor(tuple(shape), dtype)
        self.values[name] = self.data(shape, *(bounds or RANGE[dtype])).astype(dtype)
        return name

    def constant(self, value: Any, dtype: str) -> str:
        """A constant; the values of shapes and of 48-bit tensors are kept as int64."""
        name = f"const-{len(self.values) - len(self.inputs)}"
        array = np.asarray(value)
        self.tensors[name] = Tensor(array.shape, dtype)
        self.values[name] = array.astype(dtype if dtype in RANGE else "int64")
        return name

    def zeros(self, *dtypes: str) -> list[str]:
        """Zero points."""
        return [self.constant([0], dtype) for dtype in dtypes]

    def operator(self, name: str, inputs: Sequence[str], out: Tensor, **attributes: Any) -> str:
        """An operator with attributes as TOSA's schema names them."""
        output = f"tensor-{len(self.operators)}"
        self.operators.append(Operator(name, attributes, tuple(inputs), output))
        self.tensors[output] = out
        return output

    def rescale(self, x: str, dtype: str, factors: tuple[Sequence[int], Sequence[int]]) -> str:
        """RESCALE by one multiplier and shift, or by one for each channel. Those of 48-bit sums have 16 bits."""
        source = self.tensors[x]
        multiplier, shift = factors
        wide = source.dtype != "int48"
        numbers = [self.constant(multiplier, "int32" if wide else "int16"), self.constant(shift, "int8")]
        return self.operator(
            "RESCALE",
            [x, *numbers, *self.zeros(source.dtype, dtype)],
            Tensor(source.shape, dtype),
            scale32=wide,
            rounding_mode="SINGLE_ROUND",
            per_channel=len(multiplier) > 1,
            input_unsigned=False,
            output_unsigned=False,
        )

    def factors(self, x: str, count: int, magnitude: float, top: float) -> tuple[list[int], list[int]]:
        """``count`` multipliers and shifts that bring values of about ``magnitude`` to about ``top``, or beyond."""
        bits = 15 if self.tensors[x].dtype == "int48" else 31
        # Mostly as the converter makes them, with the highest bit set; now and then of any size.
        least = 1 << (bits - 1) if self.rng.random() < 0.8 else 1 << (bits // 2)
        multiplier = self.rng.integers(least, 1 << bits, count)
        ratio = top / max(magnitude, 1.0) * self.rng.uniform(0.3, 3.0, count)
        shift = np.clip(np.rint(np.log2(multiplier / ratio)), 2, 62).astype(np.int64)
        return multiplier.tolist(), shift.tolist()

    def clamp(self, x: str) -> str:
        """A ReLU, or any bounds around 0."""
        kind = self.tensors[x]
        low, high = RANGE[kind.dtype]
        low, high = (0, high) if self.number(0, 1) else (self.number(low, 0), self.number(high // 4, high))
        size = np.dtype(kind.dtype).itemsize
        bounds = {"min_val": low, "max_val": high}
        stored = {key: [*value.to_bytes(size, "little", signed=True)] for key, value in bounds.items()}
        return self.operator("CLAMP", [x], kind, nan_mode="PROPAGATE", **stored)

    def finish(self, name: str) -> Program:
        """The program, its last tensor the output."""
        last = self.operators[-1].output
        return Program(name, tuple(self.operators), self.tensors, tuple(self.inputs), (last,), self.values)
