"""What stands behind the cars: sky, buildings, and the ground with its marks, its grain and the shadows on it.

Shapes: ``H W`` the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from carkp_carfusion.data.synth.buildings import distance, paint_block
from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.ground import FAR_M, fill, paint_ground, slab
from carkp_carfusion.data.synth.light import Light
from carkp_carfusion.data.synth.noise import TILE_PX, rough_tile, smooth_tile
from carkp_carfusion.data.synth.place import Place
from carkp_carfusion.data.synth.types import Array

_SHIFT = 4


def paint_backdrop(
    camera: Camera,
    place: Place,
    light: Light,
    shadows: Sequence[Array],
    contacts: Sequence[Array],
    rng: np.random.Generator,
) -> Array:
    """The picture without cars: float32 [H, W, 3].

    ``shadows`` and ``contacts`` are ground polygons [V, 3]: what the sun doesn't reach, and what stands so close that
    little of the sky does either.
    """
    picture = _sky(camera, light, rng)
    _skyline(picture, camera, light, rng)
    top = _first_ground_row(camera)
    if top < picture.shape[0]:
        ground = paint_ground(camera, place)[top:]
        shade = _shadow(camera, light, shadows, contacts)[top:] * _grain(camera, top, rng)
        mask = np.zeros(picture.shape[:2], np.uint8)
        fill(camera, mask, slab(-FAR_M, FAR_M, -FAR_M, FAR_M), 255)
        lit = ground.astype(np.float32)
        lit *= light.on_ground
        lit *= shade[:, :, None]
        seam = int((mask[top:] < 255).any(axis=1).sum()) + 1  # rows where the horizon runs
        region = picture[top : top + seam]
        region += (lit[:seam] - region) * (mask[top : top + seam, :, None] * np.float32(1 / 255))
        picture[top + seam :] = lit[seam:]
    for block in sorted(place.blocks, key=lambda block: -distance(block, camera)):
        paint_block(picture, camera, block, light)
    return picture


def _first_ground_row(camera: Camera) -> int:
    """The uppermost row that shows any ground (the horizon tilts with the camera)."""
    width, height = camera.size_wh
    pixels = np.stack(np.meshgrid([0.0, width - 1.0], np.arange(height, dtype=float)), axis=-1)
    falls = (camera.rays(pixels)[..., 2] < 0).any(axis=1)
    return int(falls.argmax()) if falls.any() else height


def _sky(camera: Camera, light: Light, rng: np.random.Generator) -> Array:
    width, height = camera.size_wh
    pixels = np.stack([np.full(height, camera.centre_xy[0]), np.arange(height, dtype=float)], axis=-1)
    rays = camera.rays(pixels)
    up = rays[:, 2] / np.linalg.norm(rays, axis=1)
    share = np.sqrt(np.clip(up * 1.6, 0, 1))[:, None]
    column = light.horizon + (light.zenith - light.horizon) * share
    picture = np.repeat(column[:, None].astype(np.float32), width, axis=1)
    horizon_row = int(np.clip(np.searchsorted(-up, 0.0), 0, height))
    if horizon_row > 8:
        shift = rng.integers(0, TILE_PX, 2)
        tile = np.roll(smooth_tile(), shift, axis=(0, 1))[: TILE_PX // 2]
        cloud = cv2.resize(tile, (width, horizon_row), interpolation=cv2.INTER_LINEAR)
        cover = np.clip(cloud * float(rng.uniform(0.15, 0.4)) + float(rng.uniform(-0.25, 0.3)), 0, 0.85)[:, :, None]
        white = np.clip(light.ambient * 300 + light.sun * 110, 0, 250).astype(np.float32)
        picture[:horizon_row] += (white - picture[:horizon_row]) * cover
    return picture


def _skyline(picture: Array, camera: Camera, light: Light, rng: np.random.Generator) -> None:
    """Hills and a row of trees along the horizon, paler the farther they are, in place."""
    width = camera.size_wh[0]
    columns = np.arange(-4, width + 8, 4, dtype=float)
    for distance_m, height_m, colour, haze in ((3000.0, 160.0, (96, 110, 92), 0.7), (250.0, 11.0, (44, 84, 66), 0.3)):
        profile = smooth_tile()[int(rng.integers(TILE_PX))] + 0.25 * rough_tile()[int(rng.integers(TILE_PX))]
        rays = camera.rays(np.stack([columns, np.full(len(columns), camera.centre_xy[1])], axis=-1))
        azimuth = np.arctan2(rays[:, 1], rays[:, 0])
        turn = (azimuth / (2 * np.pi) % 1.0) * (3 * TILE_PX)
        rise = np.clip(1 + 0.45 * np.interp(turn % TILE_PX, np.arange(TILE_PX), profile), 0.15, None) * height_m
        reach = camera.position + distance_m * np.stack([np.cos(azimuth), np.sin(azimuth), 0 * azimuth], axis=-1)
        crest, _ = camera.project(reach * [1, 1, 0] + rise[:, None] * [0, 0, 1])
        foot, _ = camera.project(reach * [1, 1, 0])
        outline = np.concatenate([crest, (foot + np.array([0, 2]))[::-1]])
        tone = np.array(colour) * light.on_ground * (1 - haze) + light.horizon * haze
        fixed = np.round(outline * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(picture, [fixed], tuple(float(v) for v in tone), cv2.LINE_AA, _SHIFT)


def _grain(camera: Camera, top: int, rng: np.random.Generator) -> Array:
    """Brightness of the ground, about 1, float32 [H - top, W]: stains, and grit that fades with distance."""
    width, height = camera.size_wh
    step = 8
    inverse = np.linalg.inv(camera.plane_homography(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])))
    x, y = np.meshgrid(np.arange(0.0, width + step, step), np.arange(top, height, dtype=float))
    x, y, scale = (row[0] * x + row[1] * y + row[2] for row in inverse)
    scale = np.where(np.abs(scale) < 1e-9, 1e-9, scale)
    ground = np.stack([x / scale, y / scale], axis=-1)
    away = np.hypot(ground[..., 0] - camera.position[0], ground[..., 1] - camera.position[1]) + 1e-3
    size = (step * away.shape[1], height - top)
    factor = np.ones((height - top, width), np.float32)
    for per_m, amplitude, reach_m in ((90.0, 0.07, 9.0), (14.0, 0.05, 40.0)):
        start = int((away.min(axis=1) > 4 * reach_m).sum())  # further than this it has faded
        fade = (amplitude * np.clip(reach_m / away, 0, 1) ** 2).astype(np.float32)
        grid = np.clip((ground + rng.uniform(0, 100, 2)) * per_m, -3e4, 3e4).astype(np.float32)
        grid = cv2.resize(grid, size)[start:, :width]
        noise = cv2.remap(rough_tile(), grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        noise *= cv2.resize(fade, size)[start:, :width]
        factor[start:] += noise
    return factor


def _shadow(camera: Camera, light: Light, shadows: Sequence[Array], contacts: Sequence[Array]) -> Array:
    """Share of the light that reaches the ground, float32 [H, W]."""
    width, height = camera.size_wh
    sharp = np.zeros((height, width), np.uint8)
    for polygon in shadows:
        fill(camera, sharp, polygon, 255)
    soft = np.zeros((height, width), np.uint8)
    for polygon in contacts:
        fill(camera, soft, polygon, 255)
    softness = width / 1280
    sharp = cv2.GaussianBlur(sharp, (0, 0), 1.3 * softness)
    soft = cv2.GaussianBlur(soft, (0, 0), 5 * softness)
    reached = 1 - (1 - light.shadow_share) * sharp.astype(np.float32) / 255
    return np.asarray(reached * (1 - 0.62 * soft.astype(np.float32) / 255), np.float32)
