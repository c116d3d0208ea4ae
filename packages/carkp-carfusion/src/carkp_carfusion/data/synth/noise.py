"""Seamless noise pictures, the same in every process."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from carkp_carfusion.data.synth.types import Array, stream

TILE_PX = 512


@lru_cache(maxsize=1)
def rough_tile() -> Array:
    """[512, 512] float32 with detail at all scales: asphalt, plaster, leaves."""
    return _octaves("rough", {4: 0.5, 16: 0.5, 64: 0.6, 256: 0.8, 512: 0.8})


@lru_cache(maxsize=1)
def smooth_tile() -> Array:
    """[512, 512] float32 with little fine detail: clouds, the outline of hills."""
    return _octaves("smooth", {4: 1.0, 8: 0.7, 16: 0.45, 32: 0.25, 64: 0.12})


def _octaves(name: str, weights: dict[int, float]) -> Array:
    """Sum of noises of so many cells a side, each with its weight; zero mean, unit deviation, wraps round."""
    rng = stream("noise", name)
    total = np.zeros((TILE_PX, TILE_PX), np.float32)
    for cells, weight in weights.items():
        wrapped = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 2, mode="wrap")
        scale = TILE_PX // cells
        large = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += weight * large[2 * scale : 2 * scale + TILE_PX, 2 * scale : 2 * scale + TILE_PX]
    return np.asarray((total - total.mean()) / total.std(), np.float32)
