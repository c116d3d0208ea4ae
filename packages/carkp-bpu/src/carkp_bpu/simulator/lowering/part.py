"""A convolution's shares, each one matrix product.

Legend: ``K`` products in a sum, ``C`` output channels of the part.
"""

from __future__ import annotations

from attrs import frozen

from carkp_bpu.simulator.lowering.base import Array

#: Kernel, stride and dilation, (y, x) each, and the rows above and columns left of the input that windows reach.
Window = tuple[int, int, int, int, int, int, int, int]


@frozen(eq=False)
class Part:
    """One matrix product of a convolution and the outputs it makes."""

    #: int8 [K, C], and its (multiplier, shift, bias), [C] each.
    matrix: Array
    rescale: tuple[Array, Array, Array]
    #: None when a pixel's own channels are its row.
    window: Window | None
    #: First input channel and number of input channels.
    channels: tuple[int, int]
    #: First output channel, and the first and the step of its output rows and columns.
    channel: int = 0
    first_yx: tuple[int, int] = (0, 0)
    step_yx: tuple[int, int] = (1, 1)

    def grid(self, out_hw: tuple[int, int]) -> tuple[int, int]:
        """How many rows and columns of an output it makes."""
        counts = [len(range(self.first_yx[d], out_hw[d], self.step_yx[d])) for d in (0, 1)]
        return counts[0], counts[1]
