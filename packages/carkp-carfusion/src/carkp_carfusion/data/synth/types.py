"""Array aliases and the one way randomness is derived."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]
"""Blue, green, red in 0..255: OpenCV's order, since OpenCV draws and encodes everything here."""


def stream(*keys: int | str) -> np.random.Generator:
    """A random generator that depends on ``keys`` alone, not on the process, the order or the time."""
    return np.random.default_rng([zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys])
