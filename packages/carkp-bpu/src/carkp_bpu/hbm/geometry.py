"""Which rows and columns of its input a range of output positions reads, along one axis.

One definition for compiler, simulators and footprints. Ranges are half open and clipped to the input, so a window
that lies on padding entirely gives an empty range.
"""

from __future__ import annotations

from attrs import frozen

Span = tuple[int, int]


@frozen
class Window:
    """Output position o covers inputs o * stride - padding + dilation * k for k in ``taps``."""

    taps: Span
    stride: int
    dilation: int
    padding: int


def window_span(span: Span, window: Window, size: int) -> Span:
    """Input positions that a sliding window reads for outputs ``span``."""
    begin = span[0] * window.stride - window.padding + window.dilation * window.taps[0]
    end = (span[1] - 1) * window.stride - window.padding + window.dilation * (window.taps[1] - 1) + 1
    return _clip(begin, end, size)


def transposed_span(span: Span, kernel: int, stride: int, padding: int, size: int) -> Span:
    """Input positions i with o + padding - i * stride in [0, kernel) for some output o in ``span``."""
    begin = -(-(span[0] + padding - kernel + 1) // stride)
    end = (span[1] - 1 + padding) // stride + 1
    return _clip(begin, end, size)


@frozen
class Sampling:
    """TOSA RESIZE along one axis: output o samples at (o * denominator + offset) / numerator."""

    numerator: int
    denominator: int
    offset: int
    bilinear: bool

    def first(self, position: int) -> int:
        """The lower input position of an output, unclipped (nearest: the only one)."""
        place = position * self.denominator + self.offset
        whole = place // self.numerator
        if self.bilinear:
            return whole
        return whole + (2 * (place - whole * self.numerator) >= self.numerator)


def sampled_span(span: Span, sampling: Sampling, size: int) -> Span:
    """Input positions that outputs ``span`` sample; positions outside are clamped to the input's border."""
    begin = sampling.first(span[0])
    end = sampling.first(span[1] - 1) + (2 if sampling.bilinear else 1)
    return max(0, min(begin, size - 1)), max(1, min(end, size))


def _clip(begin: int, end: int, size: int) -> Span:
    begin = min(max(0, begin), size)
    return begin, max(begin, min(end, size))
