"""A drawing board in metres, on which the panels of a coat are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from carkp_carfusion.data.synth.types import Array, Colour, Image

PX_PER_M = 110.0
#: The fourth channel: how much a surface mirrors.
MATTE, PAINT, METAL, GLASS = 0, 120, 190, 255
_SHIFT = 4


class Panel:
    """A drawing board in metres, ``across`` to the right and ``up`` upwards, filled with ``base`` (b, g, r, gloss).

    Attributes
    ----------
    image : uint8 [h, w, 4]
        Blue, green, red, gloss.
    """

    def __init__(self, across: tuple[float, float], up: tuple[float, float], base: tuple[float, ...]) -> None:
        self.across, self.up = across, up
        size = (int((up[1] - up[0]) * PX_PER_M) + 1, int((across[1] - across[0]) * PX_PER_M) + 1, 4)
        pixel = np.array(base, np.uint8).view(np.uint32)
        self.image: Image = np.full(size[:2], pixel).view(np.uint8).reshape(size)

    def _pixels(self, points: Sequence[tuple[float, float]] | Array) -> Array:
        p = np.asarray(points, dtype=float).reshape(-1, 2)
        return np.column_stack([(p[:, 0] - self.across[0]) * PX_PER_M, (self.up[1] - p[:, 1]) * PX_PER_M])

    def poly(self, points: Sequence[tuple[float, float]] | Array, colour: Colour, gloss: int) -> None:
        """A filled polygon."""
        fixed = np.round(self._pixels(points) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], (*colour, gloss), cv2.LINE_AA, _SHIFT)

    def line(self, points: Sequence[tuple[float, float]] | Array, colour: Colour, width_m: float, gloss: int) -> None:
        """An open polyline."""
        fixed = np.round(self._pixels(points) * (1 << _SHIFT)).astype(np.int32)
        thick = max(1, round(width_m * PX_PER_M))
        cv2.polylines(self.image, [fixed], False, (*colour, gloss), thick, cv2.LINE_AA, _SHIFT)

    def ellipse(self, centre: tuple[float, float], half: tuple[float, float], colour: Colour, gloss: int) -> None:
        """A filled ellipse."""
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        self.poly(
            np.column_stack([centre[0] + half[0] * np.cos(angle), centre[1] + half[1] * np.sin(angle)]), colour, gloss
        )

    def rounded(self, centre: tuple[float, float], half: tuple[float, float], colour: Colour, gloss: int) -> None:
        """A superellipse: between a rectangle and an ellipse."""
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        c, s = np.cos(angle), np.sin(angle)
        x = centre[0] + half[0] * np.sign(c) * np.abs(c) ** 0.5
        y = centre[1] + half[1] * np.sign(s) * np.abs(s) ** 0.5
        self.poly(np.column_stack([x, y]), colour, gloss)
