"""Buildings: textured walls seen in perspective.

Shapes: ``H W`` the picture.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.light import Light
from carkp_carfusion.data.synth.noise import TILE_PX, rough_tile
from carkp_carfusion.data.synth.place import Block
from carkp_carfusion.data.synth.types import Array, Image

_PX_PER_M = 16
_SHIFT = 4


def distance(block: Block, camera: Camera) -> float:
    """Metres on the ground from the camera to the nearest point of a building."""
    nearest = np.clip(camera.position[:2], block.low_xy, block.high_xy)
    return float(np.hypot(*(nearest - camera.position[:2])))


def paint_block(picture: Array, camera: Camera, block: Block, light: Light) -> None:
    """Paint the walls that face the camera onto a float32 picture [H, W, 3], in place."""
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
        a, b, up = np.array([*start, 0.0]), np.array([*end, 0.0]), np.array([0, 0, block.height])
        wall = np.array([a, b, b + up, a + up])
        pixels = camera.clip(wall)
        if len(pixels) == 0:
            continue
        width = float(np.linalg.norm(b - a))
        sunlit = max(0.0, float(np.dot([*normal, 0.0], light.to_sun)))
        facade = _facade(round(width * _PX_PER_M), round(block.height * _PX_PER_M), block)
        to_pixels = camera.plane_homography(a + up, (b - a) / width / _PX_PER_M, np.array([0, 0, -1 / _PX_PER_M]))
        _lay(picture, facade, to_pixels, pixels, light.ambient + light.sun * np.float32(sunlit))


def _lay(picture: Array, texture: Image, to_pixels: Array, polygon: Array, lit: Array) -> None:
    """Warp a texture, times the light [3] on it, into the part of the picture inside a polygon of pixels."""
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
    region += (warped * lit - region) * (mask.astype(np.float32) / 255)[:, :, None]


@lru_cache(maxsize=128)  # a sequence's frames show the same houses; `Block` hashes by identity
def _facade(width: int, height: int, block: Block) -> Image:
    """A wall with storeys of windows, uint8 [height, width, 3]; the ground floor has shop windows."""
    tile = rough_tile()
    rows, columns = np.arange(max(height, 8)), np.arange(max(width, 8))
    wall = np.array(block.colour) * (1 + 0.05 * tile[np.ix_(rows % TILE_PX, columns % TILE_PX)])[:, :, None]
    if block.brick:
        wall[::5] *= 0.9
    image = np.clip(wall, 0, 255).astype(np.uint8)
    frame, mullion = (tuple(share * v for v in block.colour) for share in (0.6, 0.7))
    storey, bay = max(round(block.storey * _PX_PER_M), 20), max(round(block.bay * _PX_PER_M), 18)
    for row, top in enumerate(range(8, image.shape[0] - storey // 2, storey)):
        ground_floor = top + 2 * storey > image.shape[0]
        for column, left in enumerate(range(bay // 5, image.shape[1] - bay // 2, bay)):
            chance = float(tile[(7 * row + 3) % TILE_PX, (11 * column + 5) % TILE_PX])
            pane = tuple(min(255.0, v * (1.25 if chance > 0.4 else 0.75)) for v in block.window)
            bottom = min(top + (storey - 10 if ground_floor else round(0.62 * storey)), image.shape[0] - 4)
            right = min(left + round(0.62 * bay), image.shape[1] - 3)
            middle = (left + right) // 2
            cv2.rectangle(image, (left - 2, top - 2), (right + 2, bottom + 2), frame, -1)
            cv2.rectangle(image, (left, top), (right, bottom), pane, -1)
            cv2.line(image, (middle, top), (middle, bottom), mullion, 1)
            if not ground_floor and chance < -0.9:
                cv2.rectangle(image, (left, top), (right, (top + bottom) // 2), (208, 214, 216), -1)  # a blind
    image[:6] = np.clip(np.array(block.colour) * 0.7, 0, 255).astype(np.uint8)
    return image
