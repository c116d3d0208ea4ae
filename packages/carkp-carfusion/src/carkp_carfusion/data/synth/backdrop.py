"""What stands behind the cars: sky, buildings, and the ground with its marks, its grain and the shadows on it.

Shapes: ``H W`` the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.place import REACH_M, Block, Place, bay_rows
from carkp_carfusion.data.synth.shade import Light
from carkp_carfusion.data.synth.types import Array, Colour, Image, stream

_SHIFT = 4
_FAR_M = 400.0
_TILE = 512


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
    ground = _ground(camera, place)
    mask = np.zeros(picture.shape[:2], np.uint8)
    _fill(camera, mask, _slab(-_FAR_M, _FAR_M, -_FAR_M, _FAR_M), 255)
    grain = _grain(camera, rng)
    shade = _shadow(camera, light, shadows, contacts)
    lit = ground * light.on_ground.astype(np.float32) * (grain * shade)[:, :, None]
    share = (mask * np.float32(1 / 255))[:, :, None]
    picture += (lit - picture) * share
    for block in sorted(place.blocks, key=lambda block: -_distance(block, camera)):
        _block(picture, camera, block, light)
    return picture


@lru_cache(maxsize=1)
def noise_tile() -> Array:
    """[512, 512] float32 noise of several octaves, zero mean, unit deviation, seamless."""
    rng = stream("noise tile")
    total = np.zeros((_TILE, _TILE), np.float32)
    for octave, weight in ((4, 0.5), (16, 0.5), (64, 0.6), (256, 0.8), (512, 0.8)):
        small = rng.standard_normal((octave, octave)).astype(np.float32)
        wrapped = np.pad(small, 2, mode="wrap")
        scale = _TILE // octave
        large = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += weight * large[2 * scale : 2 * scale + _TILE, 2 * scale : 2 * scale + _TILE]
    return (total - total.mean()) / total.std()


@lru_cache(maxsize=1)
def cloud_tile() -> Array:
    """[512, 512] float32 smooth noise, seamless, for clouds."""
    rng = stream("cloud tile")
    total = np.zeros((_TILE, _TILE), np.float32)
    for octave, weight in ((4, 1.0), (8, 0.7), (16, 0.45), (32, 0.25), (64, 0.12)):
        wrapped = np.pad(rng.standard_normal((octave, octave)).astype(np.float32), 2, mode="wrap")
        scale = _TILE // octave
        large = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += weight * large[2 * scale : 2 * scale + _TILE, 2 * scale : 2 * scale + _TILE]
    return (total - total.mean()) / total.std()


def _slab(x0: float, x1: float, y0: float, y1: float) -> Array:
    return np.array([[x0, y0, 0.0], [x1, y0, 0.0], [x1, y1, 0.0], [x0, y1, 0.0]])


def _fill(camera: Camera, picture: Array, polygon: Array, colour: Colour | int) -> None:
    pixels = camera.clip(polygon)
    if len(pixels):
        fixed = np.round(pixels * (1 << _SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(picture, fixed, colour, cv2.LINE_AA, _SHIFT)  # type: ignore[call-overload]


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
        shift = rng.integers(0, _TILE, 2)
        tile = np.roll(cloud_tile(), shift, axis=(0, 1))[: _TILE // 2]
        cloud = cv2.resize(tile, (width, horizon_row), interpolation=cv2.INTER_LINEAR)
        cover = np.clip(cloud * float(rng.uniform(0.15, 0.4)) + float(rng.uniform(-0.25, 0.3)), 0, 0.85)[:, :, None]
        white = np.clip(light.ambient * 300 + light.sun * 110, 0, 250).astype(np.float32)
        picture[:horizon_row] += (white - picture[:horizon_row]) * cover
    return picture


def _ground(camera: Camera, place: Place) -> Array:
    """Albedo of the ground, float32 [H, W, 3]."""
    width, height = camera.size_wh
    canvas: Image = np.empty((height, width, 3), np.uint8)
    canvas[:] = np.array(place.verge, np.uint8)
    half, edge = place.road_half, place.road_half + place.pavement
    kerb: Colour = tuple(min(255.0, 1.16 * v) for v in place.paving)  # type: ignore[assignment]

    def strip(x0: float, x1: float, y0: float, y1: float, colour: Colour, turned: bool = False) -> None:
        corners = (y0, y1, x0, x1) if turned else (x0, x1, y0, y1)
        _fill(camera, canvas, _slab(*corners), colour)

    turns = (False, True) if place.kind == "crossing" else (False,)
    length = half if place.kind == "lot" else _FAR_M
    for margin, colour in ((edge, place.paving), (half + 0.16, kerb), (half, place.asphalt)):
        reach = margin if place.kind == "lot" else length
        for turned in turns:
            strip(-reach, reach, -margin, margin, colour, turned)
    _gutter(place, strip, turns)
    if place.kind == "lot":
        _bay_marks(place, strip)
    else:
        for turned in turns:
            _lane_marks(place, strip, turned)
    return canvas.astype(np.float32)


def _gutter(place: Place, strip, turns: Sequence[bool]) -> None:  # type: ignore[no-untyped-def]
    dark: Colour = tuple(0.72 * v for v in place.asphalt)  # type: ignore[assignment]
    start = place.road_half if place.kind == "crossing" else 0.0
    for turned in turns:
        for side in (-1, 1):
            y = sorted((side * place.road_half, side * (place.road_half - 0.3)))
            for end in (-1, 1):
                x = sorted((end * start, end * (place.road_half if place.kind == "lot" else REACH_M)))
                strip(x[0], x[1], y[0], y[1], dark, turned)


def _lane_marks(place: Place, strip, turned: bool) -> None:  # type: ignore[no-untyped-def]
    white: Colour = (220.0, 222.0, 222.0)
    stop = place.road_half + 1.5 if place.kind == "crossing" else 0.0
    lanes = np.unique(np.abs(place.lanes_y))
    for end in (-1, 1):

        def along(a: float, b: float, y: float, half: float, colour: Colour, end: int = end) -> None:
            x = sorted((end * a, end * b))
            strip(x[0], x[1], y - half, y + half, colour, turned)

        for y in (-0.14, 0.14):
            along(stop + 3.5, REACH_M, y, 0.06, place.marking)
        lane = lanes[1] - lanes[0] if len(lanes) > 2 else 0.0
        if lane:
            for side in (-1, 1):
                for start in np.arange(stop + 5, REACH_M, 9.0):
                    along(start, start + 3.0, side * lane, 0.06, white)
        for side in (-1, 1):
            inner = place.road_half - 2.6
            along(stop + 6, REACH_M, side * inner, 0.04, white)
        if stop:
            for y in np.arange(-place.road_half + 0.5, place.road_half - 0.4, 1.1):
                along(stop, stop + 2.6, y + 0.25, 0.25, white)
            y0, y1 = (-place.road_half + 0.4, -0.2) if end < 0 else (0.2, place.road_half - 0.4)
            along(stop + 3.3, stop + 3.7, 0.5 * (y0 + y1), 0.5 * (y1 - y0), white)


def _bay_marks(place: Place, strip) -> None:  # type: ignore[no-untyped-def]
    half = place.road_half - 2
    for row in bay_rows(place):
        strip(-half, half, row - 0.04, row + 0.04, place.marking)
        for x in np.arange(-np.floor(half / 2.8), np.floor(half / 2.8) + 1) * 2.8 + 1.4:
            strip(x - 0.05, x + 0.05, row - 2.6, row + 2.6, place.marking)


def _grain(camera: Camera, rng: np.random.Generator) -> Array:
    """Brightness of the ground, about 1, float32 [H, W]: stains a metre wide, and grit that fades with distance."""
    width, height = camera.size_wh
    to_pixels = camera.plane_homography(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    inverse = np.linalg.inv(to_pixels)
    factor = np.ones((height, width), np.float32)
    x, y = np.meshgrid(np.arange(0, width + 8, 8, dtype=np.float32), np.arange(height, dtype=np.float32))
    scale = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
    scale = np.where(np.abs(scale) < 1e-9, 1e-9, scale)
    ground_x = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / scale
    ground_y = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / scale
    away = np.hypot(ground_x - camera.position[0], ground_y - camera.position[1])
    tile, drift = noise_tile(), rng.uniform(0, 100, 2)
    for per_m, amplitude, reach in ((90.0, 0.07, 9.0), (14.0, 0.05, 40.0)):
        fade = (amplitude * np.clip(reach / (away + 1e-3), 0, 1) ** 2).astype(np.float32)
        grid = np.stack([(ground_x + drift[0]) * per_m, (ground_y + drift[1]) * per_m], axis=-1)
        grid = cv2.resize(np.clip(grid, -3e4, 3e4).astype(np.float32), (8 * grid.shape[1], height))[:, :width]
        noise = cv2.remap(tile, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        factor += noise * cv2.resize(fade, (8 * fade.shape[1], height))[:, :width]
    return factor


def _shadow(camera: Camera, light: Light, shadows: Sequence[Array], contacts: Sequence[Array]) -> Array:
    """Share of the light that reaches the ground, float32 [H, W]."""
    width, height = camera.size_wh
    sharp = np.zeros((height, width), np.uint8)
    for polygon in shadows:
        _fill(camera, sharp, polygon, 255)
    soft = np.zeros((height, width), np.uint8)
    for polygon in contacts:
        _fill(camera, soft, polygon, 255)
    softness = width / 1280
    sharp = cv2.GaussianBlur(sharp, (0, 0), 1.3 * softness)
    soft = cv2.GaussianBlur(soft, (0, 0), 5 * softness)
    reached = 1 - (1 - light.shadow_share) * sharp.astype(np.float32) / 255
    return np.asarray(reached * (1 - 0.62 * soft.astype(np.float32) / 255), np.float32)


def _distance(block: Block, camera: Camera) -> float:
    nearest = np.clip(camera.position[:2], block.low_xy, block.high_xy)
    return float(np.hypot(*(nearest - camera.position[:2])))


def _block(picture: Array, camera: Camera, block: Block, light: Light) -> None:
    (x0, y0), (x1, y1) = block.low_xy, block.high_xy
    eye = camera.position
    faces = (
        (eye[0] > x1, (x1, y0), (x1, y1), (1.0, 0.0)),
        (eye[0] < x0, (x0, y1), (x0, y0), (-1.0, 0.0)),
        (eye[1] > y1, (x1, y1), (x0, y1), (0.0, 1.0)),
        (eye[1] < y0, (x0, y0), (x1, y0), (0.0, -1.0)),
    )
    for facing, start, end, normal in faces:
        if not facing:
            continue
        a, b = np.array([*start, 0.0]), np.array([*end, 0.0])
        wall = np.array([a, b, b + [0, 0, block.height], a + [0, 0, block.height]])
        pixels = camera.clip(wall)
        if len(pixels) == 0:
            continue
        width = float(np.linalg.norm(b - a))
        sunlit = max(0.0, float(np.dot([*normal, 0.0], light.to_sun)))
        lit = light.ambient + light.sun * sunlit
        facade = _facade(round(width * 16), round(block.height * 16), block) * lit.astype(np.float32)
        to_pixels = camera.plane_homography(a + [0, 0, block.height], (b - a) / width / 16, np.array([0, 0, -1 / 16]))
        _lay(picture, facade, to_pixels, pixels)


def _lay(picture: Array, texture: Array, to_pixels: Array, polygon: Array) -> None:
    """Warp a texture into the part of the picture inside a polygon of pixels."""
    height, width = picture.shape[:2]
    x0, y0 = np.clip(np.floor(polygon.min(axis=0)).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(polygon.max(axis=0)).astype(int) + 1, 0, [width, height])
    if x0 >= x1 or y0 >= y1:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    fixed = np.round((polygon - [x0, y0]) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(mask, fixed, 255, cv2.LINE_AA, _SHIFT)
    move = np.array([[1.0, 0, -x0], [0, 1, -y0], [0, 0, 1]])
    size = (int(x1 - x0), int(y1 - y0))
    warped = cv2.warpPerspective(
        texture, move @ to_pixels, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    region = picture[y0:y1, x0:x1]
    region += (warped - region) * (mask.astype(np.float32) / 255)[:, :, None]


def _facade(width: int, height: int, block: Block) -> Array:
    """A wall with storeys of windows, 16 pixels to the metre, float32 [height, width, 3]."""
    wall = np.empty((max(height, 8), max(width, 8), 3), np.float32)
    wall[:] = block.colour
    tile = noise_tile()
    rows, columns = np.arange(wall.shape[0]) % _TILE, np.arange(wall.shape[1]) % _TILE
    wall *= (1 + 0.05 * tile[np.ix_(rows, columns)])[:, :, None]
    if block.brick:
        wall[::5] *= 0.9
    storey, bay = max(round(block.storey * 16), 20), max(round(block.bay * 16), 18)
    image = np.clip(wall, 0, 255).astype(np.uint8)
    for row, top in enumerate(range(8, image.shape[0] - storey // 2, storey)):
        ground_floor = top + 2 * storey > image.shape[0]
        for column, left in enumerate(range(bay // 5, image.shape[1] - bay // 2, bay)):
            shine = 0.75 + 0.5 * float(tile[(7 * row + 3) % _TILE, (11 * column + 5) % _TILE] > 0.4)
            pane = tuple(min(255.0, shine * v) for v in block.window)
            bottom = min(top + (storey - 10 if ground_floor else round(0.62 * storey)), image.shape[0] - 4)
            right = min(left + round(0.62 * bay), image.shape[1] - 3)
            cv2.rectangle(image, (left - 2, top - 2), (right + 2, bottom + 2), tuple(0.6 * v for v in block.colour), -1)
            cv2.rectangle(image, (left, top), (right, bottom), pane, -1)
            cv2.line(
                image,
                ((left + right) // 2, top),
                ((left + right) // 2, bottom),
                tuple(0.7 * v for v in block.colour),
                1,
            )
    image[:6] = np.clip(np.array(block.colour) * 0.7, 0, 255).astype(np.uint8)
    return image.astype(np.float32)
