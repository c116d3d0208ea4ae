"""A cut-out as the camera sees it: scaled, placed in the depth buffer's pixels, and asked what it covers."""

from __future__ import annotations

import cv2
import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.camera import Camera
from carkp_carfusion.data.synth.raster import SUPERSAMPLE
from carkp_carfusion.data.synth.scene import Thing
from carkp_carfusion.data.synth.types import Array, Image


@frozen(eq=False)
class Billboard:
    """A scaled cut-out.

    Attributes
    ----------
    picture : uint8 [h, w, 4]
        At the depth buffer's scale; the fourth channel is 0 or 255.
    low_xy : (int, int)
        Buffer pixel of its upper left corner (may be negative).
    depth : float
        Metres along the camera's axis.
    """

    picture: Image
    low_xy: tuple[int, int]
    depth: float

    def covers(self, points_xy: Array) -> Array:
        """[P] whether picture pixels [P, 2] lie on the cut-out."""
        at = np.round((points_xy + 0.5) * SUPERSAMPLE - 0.5).astype(np.int64) - self.low_xy
        height, width = self.picture.shape[:2]
        inside = (at >= 0).all(axis=1) & (at < [width, height]).all(axis=1)
        found = np.zeros(len(at), bool)
        found[inside] = self.picture[at[inside, 1], at[inside, 0], 3] > 127
        return found


def to_billboard(camera: Camera, thing: Thing) -> Billboard | None:
    """Scale a thing to its distance; None when it is behind the camera, beside the picture or a few pixels big."""
    (x, y), depth = camera.project(thing.foot)
    if depth < 1.5:
        return None
    scale = camera.focal_px / float(depth) * SUPERSAMPLE
    width, height = round(thing.sprite.width_m * scale), round(thing.sprite.height_m * scale)
    if width < 3 or height < 6 or max(width, height) > 8 * max(camera.size_wh):
        return None
    left, foot = round((x + 0.5) * SUPERSAMPLE - width / 2), round((y + 0.5) * SUPERSAMPLE)
    if (
        left + width < 0
        or left > camera.size_wh[0] * SUPERSAMPLE
        or foot < 0
        or foot - height > camera.size_wh[1] * SUPERSAMPLE
    ):
        return None
    source = thing.sprite.picture[:, ::-1] if thing.mirrored else thing.sprite.picture
    shrinks = height < source.shape[0]
    picture = cv2.resize(
        np.ascontiguousarray(source), (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    cover = picture[:, :, 3:].astype(np.float32)
    # The resize mixes in the transparent black round the cut-out; divide it out again.
    colour = picture[:, :, :3] * (255.0 / np.maximum(cover, 1.0)) if shrinks else picture[:, :, :3]
    sharp = np.concatenate(
        [np.clip(colour, 0, 255).astype(np.uint8), (cover > 127).astype(np.uint8) * np.uint8(255)], axis=2
    )
    return Billboard(sharp, (left, foot - height), float(depth))
