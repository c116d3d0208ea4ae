"""From light to file: lens blur, motion blur, exposure, white balance, vignette, noise and JPEG."""

from __future__ import annotations

import math

import cv2
import numpy as np

from carkp_carfusion.data.synth.difficulty import Difficulty
from carkp_carfusion.data.synth.types import Array, Image


def expose(picture: Array, difficulty: Difficulty, rng: np.random.Generator) -> Image:
    """A float32 picture [H, W, 3] in 0..255 -> what the sensor delivers, uint8."""
    height, width = picture.shape[:2]
    scale = width / 1280
    blur = float(rng.uniform(*difficulty.blur_px)) * scale
    if blur > 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    motion = float(rng.uniform(*difficulty.motion_px)) * scale
    angle = float(rng.uniform(0, math.pi))
    if motion > 1.2:
        picture = cv2.filter2D(picture, -1, _motion_kernel(motion, angle))
    exposure = float(rng.uniform(*difficulty.exposure))
    gain = (exposure * (1 + rng.uniform(-0.05, 0.05, 3))).astype(np.float32)
    contrast, gamma = float(rng.uniform(0.9, 1.12)), float(rng.uniform(0.78, 0.92))
    fall = float(rng.uniform(0, 0.22))
    picture = picture * _vignette(height, width, fall)[:, :, None]
    picture *= gain
    picture += _noise(height, width, float(rng.uniform(*difficulty.noise)), rng)
    return np.asarray(cv2.LUT(np.clip(picture, 0, 255).astype(np.uint8), _tone(contrast, gamma, exposure)))


def _tone(contrast: float, gamma: float, exposure: float) -> Image:
    """[256] the curve from light to grey level: gamma, then contrast about the middle of what the exposure gives."""
    grey = 255 * (np.arange(256) / 255) ** gamma
    middle = 120 * min(1.0, exposure) ** gamma
    return np.asarray(np.clip((grey - middle) * contrast + middle, 0, 255).round(), np.uint8)


def encode(picture: Image, difficulty: Difficulty, rng: np.random.Generator) -> bytes:
    """JPEG bytes at a drawn quality."""
    quality = int(rng.uniform(*difficulty.jpeg_quality))
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(data)


def _motion_kernel(length: float, angle: float) -> Array:
    side = 2 * math.ceil(length / 2) + 1
    kernel = np.zeros((side, side), np.float32)
    middle = side // 2
    for t in np.linspace(-length / 2, length / 2, 4 * side):
        kernel[round(middle + t * math.sin(angle)), round(middle + t * math.cos(angle))] += 1
    return np.asarray(kernel / kernel.sum(), np.float32)


def _vignette(height: int, width: int, fall: float) -> Array:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
    return np.asarray(1 - np.float32(fall * 0.5) * (x + y), np.float32)


def _noise(height: int, width: int, sigma: float, rng: np.random.Generator) -> Array:
    """Noise that the channels share in part. One plane is drawn; the channels read it at three offsets."""
    pad = 16
    plane = rng.standard_normal((height + pad, width + pad), dtype=np.float32)
    out = np.empty((height, width, 3), np.float32)
    grey = plane[:height, :width]
    for channel, (dy, dx) in enumerate(rng.integers(1, pad, (3, 2))):
        out[:, :, channel] = (
            np.float32(0.8 * sigma) * grey + np.float32(0.6 * sigma) * plane[dy : dy + height, dx : dx + width]
        )
    return out
