"""What a lowered node is: parameters made ready once, then bound to the buffers of each worker.

Tensors of rank 4 are stored channels-last (NHWC) and all others in the order of the IR; ``stored`` and ``logical``
turn one view into the other without copying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from carkp_core.ir.graph import Node, TensorType

Array = npt.NDArray[Any]
Run = Callable[[], None]

#: Elements of parameters that repeat: a multiple of the channels at least this long keeps the inner loops wide.
PERIOD = 256


class Scratch:
    """Room that steps use while they run, one after another: each ``reset`` gives it all back."""

    def __init__(self, capacity: int) -> None:
        self._buffer = np.empty(capacity, dtype=np.uint8)
        self._used = 0

    def reset(self) -> None:
        """Start the next step."""
        self._used = 0

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array nobody else uses until the step ends."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self._used + size > self._buffer.size:
            # Earlier steps keep their part of the smaller buffer alive; doubling keeps the sum of all small.
            self._buffer = np.empty(max(2 * self._buffer.size, size), dtype=np.uint8)
            self._used = 0
        part = self._buffer[self._used : self._used + size]
        self._used += -(-size // 64) * 64
        return part.view(dtype).reshape(shape)


#: (stored inputs, stored output, scratch) -> what to call. The first dimension of all is the number of images.
Bind = Callable[[Sequence[Array], Array, Scratch], Sequence[Run]]


@frozen(eq=False)
class Request:
    """A node to lower."""

    node: Node
    inputs: tuple[TensorType, ...]
    #: Whether the machine's int8 matrix multiply may be used; None: if it passes its self-test, once it is needed.
    int8_multiply: bool | None = None
    #: Whether the vector kernels may be used.
    vectors: bool = False

    @property
    def on_vectors(self) -> bool:
        """Whether the vector kernels may compute this node: they know int8 alone."""
        return self.vectors and self.inputs[0].dtype == self.output.dtype == "int8"

    @property
    def op(self) -> Any:
        """The node's operator."""
        return self.node.op

    @property
    def output(self) -> TensorType:
        """The node's type."""
        return self.node.type


@frozen(eq=False)
class Rescale:
    """Rescale parameters for kernels: ``offset`` holds bias and rounding (see ``kernels``)."""

    multiplier: Array = field()
    offset: Array
    shift: Array

    @classmethod
    def of(cls, multiplier: Array, shift: Array, bias: Array | int = 0, fraction_bits: int = 0) -> Rescale:
        """From the IR's numbers, one for each channel; an add's term keeps ``fraction_bits``."""
        multiplier64 = np.asarray(multiplier, dtype=np.int64)
        shift64 = np.asarray(shift, dtype=np.int64) - fraction_bits
        offset = np.asarray(bias, dtype=np.int64) * multiplier64 + np.left_shift(np.int64(1), shift64 - 1)
        return cls(multiplier64.astype(np.int32), offset, shift64)

    def repeated(self) -> Rescale:
        """The same, repeated to at least ``PERIOD`` elements."""
        times = -(-PERIOD // self.multiplier.size)
        return Rescale(*(np.tile(part, times) for part in self.arrays))

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """As kernels take it."""
        return self.multiplier, self.offset, self.shift


def stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a tensor of the IR is stored."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def stored(logical: Array) -> Array:
    """A tensor in the IR's order of dimensions, seen in the stored order."""
    return logical.transpose(0, 2, 3, 1) if logical.ndim == 4 else logical


def logical(stored: Array) -> Array:
    """A stored tensor, seen in the IR's order of dimensions."""
    return stored.transpose(0, 3, 1, 2) if stored.ndim == 4 else stored


def stored_axis(axis: int, rank: int) -> int:
    """Where a dimension of the IR's order stands in the stored order."""
    return (0, 3, 1, 2)[axis] if rank == 4 else axis
