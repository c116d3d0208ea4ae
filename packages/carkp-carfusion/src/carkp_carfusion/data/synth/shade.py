"""The colour of every visible part of a solid: diffuse light, mirrored sky, the sun's highlight, grime near the ground.

Shading happens after the depth test. Coverage is counted in subpixels; the colour is computed once per picture pixel,
at the first subpixel that the solid owns: the quad that won there gives the normal and the coat's panel, the depth
gives the point in the solid's frame, and everything else is arithmetic on arrays.

Shapes: ``n`` picture pixels that a solid shows in, ``m`` its quads, ``h w`` the patch.
"""

from __future__ import annotations

import cv2
import numpy as np
from attrs import frozen

from carkp_carfusion.data.synth.coat import Coat
from carkp_carfusion.data.synth.light import Light
from carkp_carfusion.data.synth.mesh import Mesh
from carkp_carfusion.data.synth.raster import SUPERSAMPLE, DepthBuffer, affine_over_quads
from carkp_carfusion.data.synth.types import Array, Image

_REMAP_COLUMNS = 1024
#: The order in which a pixel's subpixels (row, column) are asked for its colour.
_SUBPIXELS = ((0, 0), (1, 1), (0, 1), (1, 0))


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


def shade_mesh(
    buffer: DepthBuffer, mesh: Mesh, first: int, coat: Coat, pose: tuple[Array, Array], light: Light
) -> Patch | None:
    """Colour the visible part of a placed mesh; None when it shows nowhere.

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
    box = picture_box(pixels.reshape(-1, 2), camera.size_wh)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    s = SUPERSAMPLE
    owner = buffer.owner[y0 * s : y1 * s, x0 * s : x1 * s]
    mine = (owner >= first) & (owner < first + len(mesh.panel))
    samples = np.stack([mine[dy::s, dx::s] for dy, dx in _SUBPIXELS])
    coverage = samples.sum(axis=0, dtype=np.uint8)
    rows, columns = np.nonzero(coverage)
    if len(rows) == 0:
        return None
    chosen = np.array(_SUBPIXELS)[samples.argmax(axis=0)[rows, columns]]
    sub_y, sub_x = rows * s + chosen[:, 0], columns * s + chosen[:, 1]
    face = owner[sub_y, sub_x] - first
    sub_y, sub_x = sub_y + y0 * s, sub_x + x0 * s
    reach = 1 / buffer.inverse_depth[sub_y, sub_x]

    at = np.stack([sub_x, sub_y], axis=1).astype(np.float32)
    slopes = affine_over_quads(buffer.to_buffer(pixels), mesh.normals / depth[..., None]).astype(np.float32)[face]
    normal = slopes[:, 0] * at[:, :1] + slopes[:, 1] * at[:, 1:] + slopes[:, 2]
    normal /= _length(normal) + np.float32(1e-9)
    ray = np.ones((len(at), 3), np.float32)
    ray[:, :2] = ((at + 0.5) / s - 0.5 - np.array(camera.centre_xy, np.float32)) / np.float32(camera.focal_px)
    ray = ray @ camera.rotation.astype(np.float32)
    rotation, offset = pose
    eye = ((camera.position - offset) @ rotation).astype(np.float32)
    own = (ray * reach[:, None]) @ rotation.astype(np.float32) + eye

    texel = _sample(coat.reduced(camera.focal_px / float(depth.mean())), mesh.panel[face], own)
    shown = np.clip(_reflect(texel, normal, ray, own[:, 2], light), 0, 255)
    share = coverage.astype(np.float32) / (s * s)
    colour = np.zeros((*share.shape, 3), np.float32)
    colour[rows, columns] = shown * share[rows, columns, None]
    return Patch((x0, y0), colour, share)


def _length(vectors: Array) -> Array:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None])


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
    """[n, 3] colours: the texel under diffuse light, plus what the surface mirrors.

    The mirrored surroundings are a sky that brightens towards the horizon, an uneven dark skyline, and the ground. The
    share that is mirrored grows towards grazing angles (Schlick's approximation with a power of 4).
    """
    view = ray / _length(ray)
    facing = np.einsum("ij,ij->i", view, normal)
    mirrored = view - 2 * facing[:, None] * normal
    lambert = np.maximum(normal @ light.to_sun, 0)
    hemisphere = 0.72 + 0.28 * normal[:, 2]
    lit = hemisphere[:, None] * light.ambient + lambert[:, None] * light.sun
    grime = 0.62 + 0.38 * np.clip(height / 0.55, 0, 1)
    gloss = texel[:, 3] * np.float32(1 / 255)

    up = mirrored[:, 2]
    skyward = np.clip(up * 6 + 0.6, 0, 1)[:, None]  # a soft horizon, a little below eye level
    sky = light.horizon + (light.zenith - light.horizon) * np.sqrt(np.clip(up, 0, 1))[:, None]
    uneven = 0.25 - 0.25 * np.sin(5 * np.arctan2(mirrored[:, 1], mirrored[:, 0]))
    skyline = 1 - np.clip(1 - np.abs(up) * 5, 0, 1) * uneven
    surroundings = light.ground + (sky - light.ground) * skyward
    grazing = np.clip(1 + facing, 0, 1) ** 2
    fresnel = gloss * (0.05 + 0.12 * gloss + 0.5 * grazing * grazing)
    highlight = np.clip(mirrored @ light.to_sun, 0, 1) ** 2
    highlight = highlight * highlight
    highlight = (highlight * highlight) ** 4 * gloss * np.float32(190 * light.sun.mean())
    body = texel[:, :3] * lit * (grime * (1 - fresnel))[:, None]
    return np.asarray(body + surroundings * (fresnel * grime * skyline)[:, None] + highlight[:, None], np.float32)


def picture_box(pixels: Array, size_wh: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Whole-pixel box x0, y0, x1, y1 round points, clipped to the picture; None when nothing is left."""
    if len(pixels) == 0:
        return None
    x0, y0 = np.floor(pixels.min(axis=0)).astype(int) - 1
    x1, y1 = np.ceil(pixels.max(axis=0)).astype(int) + 2
    x0, y0, x1, y1 = max(int(x0), 0), max(int(y0), 0), min(int(x1), size_wh[0]), min(int(y1), size_wh[1])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


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
