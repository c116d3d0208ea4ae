"""Light, and the colour of every subpixel of a solid: diffuse, sky reflection, sun highlight, grime near the ground.

Shading happens after the depth test, once per visible subpixel: the quad that won gives the normal and the coat's
panel, the depth gives the point in the car's frame, and everything else is arithmetic on arrays.

Shapes: ``n`` visible subpixels of one solid, ``m`` its quads.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.coat import Coat
from carkp_carfusion.data.synth.mesh import Mesh
from carkp_carfusion.data.synth.raster import SUPERSAMPLE, DepthBuffer, affine_over_quads
from carkp_carfusion.data.synth.types import Array, Image

_REMAP_COLUMNS = 1024


@frozen(eq=False)
class Light:
    """The light of a scene. Colours are blue, green, red factors; 1 is a full-scale white surface.

    Attributes
    ----------
    to_sun : float64 [3]
        Unit vector towards the sun, world frame.
    sun, ambient : float64 [3]
        Strength of the sun and of the sky.
    zenith, horizon, ground : float64 [3]
        Colours (0..255) that polished surfaces reflect.
    """

    to_sun: Array
    sun: Array
    ambient: Array
    zenith: Array
    horizon: Array
    ground: Array

    @property
    def shadow_share(self) -> float:
        """How bright a horizontal surface is in shadow, as a share of its brightness in the sun."""
        lit = self.ambient.mean() + self.sun.mean() * max(float(self.to_sun[2]), 0.0)
        return float(self.ambient.mean() / lit)

    @property
    def on_ground(self) -> Array:
        """[3] the light a horizontal surface receives."""
        return np.asarray(self.ambient + self.sun * max(float(self.to_sun[2]), 0.0))


def make_light(rng: np.random.Generator, *, overcast: float, low_sun: float) -> Light:
    """Draw a light. ``overcast`` and ``low_sun`` are probabilities."""
    azimuth = float(rng.uniform(0, 2 * math.pi))
    low = rng.random() < low_sun
    elevation = math.radians(float(rng.uniform(16, 32) if low else rng.uniform(35, 72)))
    to_sun = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    if rng.random() < overcast:
        grey = np.array([1.0, 0.99, 0.97]) * float(rng.uniform(0.68, 0.86))
        zenith = np.array([205, 200, 195]) * float(rng.uniform(0.75, 1.0))
        return Light(to_sun, grey * 0.16, grey, zenith, zenith * 1.08, np.array([70.0, 70, 70]))
    warm = np.array([0.72, 0.86, 1.0]) if low else np.array([0.93, 0.97, 1.0])
    sun = warm * float(rng.uniform(0.62, 0.85))
    ambient = np.array([0.48, 0.44, 0.40]) * float(rng.uniform(0.85, 1.15))
    zenith = np.array([196.0, 142, 84]) * float(rng.uniform(0.8, 1.15))
    horizon = np.array([225.0, 215, 200]) if not low else np.array([190.0, 205, 232])
    return Light(to_sun, sun, ambient, zenith, horizon, np.array([62.0, 64, 66]))


@frozen(eq=False)
class Patch:
    """A shaded part of the picture, premultiplied by its coverage.

    Attributes
    ----------
    low_xy : tuple of int
        Picture pixel of the patch's upper left corner.
    colour : float32 [h, w, 3]
        Blue, green, red in 0..255, times coverage.
    coverage : float32 [h, w]
    """

    low_xy: tuple[int, int]
    colour: Array
    coverage: Array


def gather(buffer: DepthBuffer, first: int, count: int, box: tuple[int, int, int, int]) -> tuple[Array, Array] | None:
    """Subpixels owned by ``first .. first + count - 1`` inside a picture box; flat indices into the buffer and owners.

    ``box`` is x0, y0, x1, y1 in whole picture pixels. None when the solid shows nowhere.
    """
    width = buffer.owner.shape[1]
    x0, y0, x1, y1 = (v * SUPERSAMPLE for v in box)
    region = buffer.owner[y0:y1, x0:x1]
    rows, columns = np.nonzero((region >= first) & (region < first + count))
    if len(rows) == 0:
        return None
    flat = (rows + y0) * width + (columns + x0)
    return flat, region[rows, columns] - first


def shade_mesh(
    buffer: DepthBuffer, mesh: Mesh, first: int, coat: Coat, pose: tuple[Array, Array], light: Light
) -> Patch | None:
    """Colour the visible part of a placed mesh.

    Parameters
    ----------
    buffer : DepthBuffer
        Complete: every solid of the frame is drawn.
    mesh : Mesh
        In the world's frame, as it was given to the buffer.
    first : int
        What `DepthBuffer.add_mesh` returned.
    coat : Coat
    pose : ([3, 3], [3])
        Rotation and offset of the solid: world = rotation @ own + offset.
    light : Light
    """
    camera = buffer.camera
    pixels, depth = camera.project(mesh.corners)
    box = picture_box(pixels[depth.min(axis=1) > 0.2].reshape(-1, 2), camera.size_wh)
    owned = gather(buffer, first, len(mesh.panel), box) if box else None
    if box is None or owned is None:
        return None
    flat, face = owned
    width = buffer.owner.shape[1]
    sub_x, sub_y = (flat % width).astype(np.float32), (flat // width).astype(np.float32)

    safe_depth = np.maximum(depth, 0.2)[..., None]
    slopes = affine_over_quads(buffer.to_buffer(pixels), mesh.normals / safe_depth).astype(np.float32)
    chosen = slopes.reshape(-1, 9)[face]
    normal = chosen[:, 0:3] * sub_x[:, None] + chosen[:, 3:6] * sub_y[:, None] + chosen[:, 6:9]
    normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None] + 1e-9

    focal = camera.focal_px
    ray = np.empty((len(flat), 3), np.float32)
    ray[:, 0] = ((sub_x + 0.5) / SUPERSAMPLE - 0.5 - camera.centre_xy[0]) / focal
    ray[:, 1] = ((sub_y + 0.5) / SUPERSAMPLE - 0.5 - camera.centre_xy[1]) / focal
    ray[:, 2] = 1.0
    ray = ray @ camera.rotation.astype(np.float32)
    rotation, offset = pose
    reach = 1.0 / buffer.inverse_depth.reshape(-1)[flat]
    own = (ray * reach[:, None]) @ rotation.astype(np.float32) + ((camera.position - offset) @ rotation).astype(
        np.float32
    )

    colour = _reflect(_sample(coat, mesh.panel[face], own), normal, ray, own[:, 2], light)
    return _patch(flat, colour, box, width)


def _sample(coat: Coat, panel: Array, own: Array) -> Array:
    """[n, 4] float32 colour and gloss of points [n, 3] in the car's frame."""
    maps = coat.maps[panel]
    uv = np.einsum("nij,nj->ni", maps[:, :, :3], own) + maps[:, :, 3]
    count = len(uv)
    rows = -(-count // _REMAP_COLUMNS)
    padded = np.zeros((rows * _REMAP_COLUMNS, 2), np.float32)
    padded[:count] = uv
    grid = padded.reshape(rows, _REMAP_COLUMNS, 2)
    taken = cv2.remap(coat.atlas, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(taken.reshape(-1, 4)[:count], np.float32)


def _reflect(texel: Array, normal: Array, ray: Array, height: Array, light: Light) -> Array:
    """[n, 3] colours: texel under diffuse light, plus what the surface mirrors."""
    view = ray / np.sqrt(np.einsum("ij,ij->i", ray, ray))[:, None]
    facing = np.einsum("ij,ij->i", view, normal)
    mirrored = view - 2 * facing[:, None] * normal
    to_sun = light.to_sun.astype(np.float32)
    lambert = np.maximum(normal @ to_sun, 0)
    hemisphere = 0.72 + 0.28 * normal[:, 2]
    lit = hemisphere[:, None] * light.ambient.astype(np.float32) + lambert[:, None] * light.sun.astype(np.float32)
    grime = 0.62 + 0.38 * np.clip(height / 0.55, 0, 1)
    gloss = texel[:, 3] * np.float32(1 / 255)

    up = mirrored[:, 2]
    skyward = np.clip(up * 6 + 0.6, 0, 1)[:, None]  # a soft horizon, a little below eye level
    sky = light.horizon + (light.zenith - light.horizon) * np.sqrt(np.clip(up, 0, 1))[:, None]
    skyline = (0.75 + 0.25 * np.sin(5 * np.arctan2(mirrored[:, 1], mirrored[:, 0])))[:, None]
    near_horizon = np.clip(1 - np.abs(up) * 5, 0, 1)[:, None]
    surroundings = (sky * skyward + light.ground * (1 - skyward)) * (1 - near_horizon * (1 - skyline))
    grazing = np.clip(1 + facing, 0, 1) ** 2
    fresnel = gloss * (0.05 + 0.12 * gloss + 0.5 * grazing * grazing)
    highlight = np.clip(mirrored @ to_sun, 0, 1) ** 2
    highlight = highlight * highlight
    highlight = (highlight * highlight) ** 4 * gloss * 190 * float(light.sun.mean())

    body = texel[:, :3] * lit * (grime * (1 - fresnel))[:, None]
    return np.asarray(
        body + surroundings.astype(np.float32) * (fresnel * grime)[:, None] + highlight[:, None], np.float32
    )


def picture_box(pixels: Array, size_wh: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Whole-pixel box x0, y0, x1, y1 round points, clipped to the picture; None when nothing is left."""
    if len(pixels) == 0:
        return None
    x0, y0 = np.floor(pixels.min(axis=0)).astype(int) - 1
    x1, y1 = np.ceil(pixels.max(axis=0)).astype(int) + 2
    x0, y0, x1, y1 = max(int(x0), 0), max(int(y0), 0), min(int(x1), size_wh[0]), min(int(y1), size_wh[1])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _patch(flat: Array, colour: Array, box: tuple[int, int, int, int], buffer_width: int) -> Patch:
    x0, y0, x1, y1 = box
    wide, high = (x1 - x0) * SUPERSAMPLE, (y1 - y0) * SUPERSAMPLE
    local = (flat // buffer_width - y0 * SUPERSAMPLE) * wide + (flat % buffer_width - x0 * SUPERSAMPLE)
    canvas = np.zeros((high * wide, 4), np.float32)
    canvas[local, :3] = np.clip(colour, 0, 255)
    canvas[local, 3] = 1.0
    small = cv2.resize(canvas.reshape(high, wide, 4), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return Patch((x0, y0), small[:, :, :3], small[:, :, 3])


def shade_billboard(buffer: DepthBuffer, owner: int, picture: Image, low_xy: tuple[int, int]) -> Patch | None:
    """The visible part of a billboard whose colours ``picture`` [h, w, 3+] lie at buffer pixel ``low_xy``."""
    s = SUPERSAMPLE
    width, height = buffer.camera.size_wh
    x0, y0 = max(low_xy[0] // s, 0), max(low_xy[1] // s, 0)
    x1 = min(-(-(low_xy[0] + picture.shape[1]) // s), width)
    y1 = min(-(-(low_xy[1] + picture.shape[0]) // s), height)
    if x0 >= x1 or y0 >= y1:
        return None
    owned = buffer.owner[y0 * s : y1 * s, x0 * s : x1 * s] == owner
    if not owned.any():
        return None
    rows, columns = np.nonzero(owned)
    canvas = np.zeros((*owned.shape, 4), np.float32)
    canvas[rows, columns, :3] = picture[rows + y0 * s - low_xy[1], columns + x0 * s - low_xy[0], :3]
    canvas[rows, columns, 3] = 1.0
    small = cv2.resize(canvas, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return Patch((x0, y0), small[:, :, :3], small[:, :, 3])


def composite(picture: Array, patches: list[Patch]) -> None:
    """Lay patches over a float32 picture [H, W, 3], in place; patches share no subpixel, so their order is free."""
    cover = np.zeros(picture.shape[:2], np.float32)
    for patch in patches:
        (x0, y0), (high, wide) = patch.low_xy, patch.coverage.shape
        cover[y0 : y0 + high, x0 : x0 + wide] += patch.coverage
    picture *= np.clip(1 - cover, 0, 1)[:, :, None]
    for patch in patches:
        (x0, y0), (high, wide) = patch.low_xy, patch.coverage.shape
        picture[y0 : y0 + high, x0 : x0 + wide] += patch.colour
