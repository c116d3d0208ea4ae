"""Pictures of keypoints: skeletons on images, heatmap overlays, contact sheets.

Everything takes and returns RGB uint8 [H, W, 3] and never draws into its argument. Coordinates are pixels, an integer
is a pixel's centre, and drawing keeps a sixteenth of a pixel.
Shape legend: K keypoints, h w heatmap cells, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from carkp_carfusion.data.geometry import fit_size, move_points, resize_image, scaling
from carkp_carfusion.data.images import Image
from carkp_carfusion.skeleton import Rgb, Skeleton

_SUB_PIXEL_BITS = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE: Rgb = (245, 245, 245)
_DARK: Rgb = (24, 26, 30)
_GREY: Rgb = (150, 155, 165)
_TRUTH: Rgb = (255, 255, 255)
_ERROR: Rgb = (255, 70, 70)


@frozen
class DrawStyle:
    """Sizes in pixels of the image drawn on. `DrawStyle.for_image` picks them by the image's size."""

    radius_px: float = 3.0
    line_px: int = 1
    text_px: int = 11
    #: Points below this confidence are not drawn, nor are edges to them.
    min_confidence: float = 0.0
    show_confidence: bool = False

    @classmethod
    def for_image(cls, image: Image, **changes: Any) -> DrawStyle:
        """Sizes that read well on an image of this size."""
        side = math.sqrt(image.shape[0] * image.shape[1])
        sizes: dict[str, Any] = {
            "radius_px": min(9.0, max(2.0, side / 90)),
            "line_px": max(1, min(4, round(side / 300))),
            "text_px": max(9, min(22, round(side / 45))),
        }
        return cls(**{**sizes, **changes})


def draw_keypoints(
    image: Image,
    keypoints: NDArray[Any],
    skeleton: Skeleton,
    valid: NDArray[Any] | None = None,
    style: DrawStyle | None = None,
) -> Image:
    """Draw one object's skeleton.

    Parameters
    ----------
    keypoints:
        [K, 2] x and y, or [K, 3] with a confidence; a lower confidence is drawn fainter.
    valid:
        [K]; where it is 0 the point and its edges are left out. None: all points.
    """
    style = style or DrawStyle.for_image(image)
    points = np.asarray(keypoints, np.float64)
    confidence = points[:, 2].clip(0, 1) if points.shape[1] > 2 else np.ones(len(points))
    shown = np.isfinite(points).all(1) & (confidence >= style.min_confidence)
    if valid is not None:
        shown &= np.asarray(valid) > 0
    canvas = image.copy()
    lines = canvas.copy()
    for a, b in skeleton.edges:
        if shown[a] and shown[b]:
            colour = _mix(skeleton.colour(a), skeleton.colour(b))
            cv2.line(lines, _fixed(points[a]), _fixed(points[b]), colour, style.line_px, cv2.LINE_AA, _SUB_PIXEL_BITS)
    canvas = cv2.addWeighted(lines, 0.75, canvas, 0.25, 0)
    for index in np.flatnonzero(shown).tolist():
        fade = 0.35 + 0.65 * float(confidence[index])
        _dot(canvas, points[index], _mix(skeleton.colour(index), _DARK, fade), style.radius_px)
    if style.show_confidence and points.shape[1] > 2:
        for index in np.flatnonzero(shown).tolist():
            x, y = points[index, :2] + (style.radius_px + 2, style.text_px / 2 - 1)
            draw_text(canvas, f"{100 * confidence[index]:.0f}", (x, y), style.text_px, skeleton.colour(index))
    return canvas


def draw_comparison(
    image: Image,
    predicted: NDArray[Any],
    truth_xy: NDArray[Any],
    valid: NDArray[Any],
    skeleton: Skeleton,
    style: DrawStyle | None = None,
) -> Image:
    """Draw a prediction [K, 2 or 3] with a red line from each valid point's true place, marked by a white ring."""
    style = style or DrawStyle.for_image(image)
    canvas = draw_keypoints(image, predicted, skeleton, style=style)
    for index in np.flatnonzero(np.asarray(valid) > 0).tolist():
        start, end = np.asarray(truth_xy)[index, :2], np.asarray(predicted)[index, :2]
        cv2.line(canvas, _fixed(start), _fixed(end), _ERROR, style.line_px, cv2.LINE_AA, _SUB_PIXEL_BITS)
        _ring(canvas, start, _TRUTH, style.radius_px + 1.5, style.line_px)
    return canvas


def draw_box(image: Image, window: tuple[int, int, int, int], colour: Rgb = _GREY, label: str = "") -> Image:
    """Draw a frame round the pixels (left, top, right, bottom), ends excluded, with a label above it."""
    canvas = image.copy()
    left, top, right, bottom = window
    style = DrawStyle.for_image(image)
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, style.line_px, cv2.LINE_AA)
    if label:
        draw_text(canvas, label, (left + 2, max(top - 4, style.text_px + 2)), style.text_px, _WHITE)
    return canvas


def overlay_heatmaps(image: Image, heatmaps: NDArray[Any], opacity: float = 0.6) -> Image:
    """Lay the largest of K heatmaps [K, h, w] (values 0..1) over an image whose size is a multiple of h and w.

    Cells are enlarged about their centres, so cell u covers the pixels round (u + 0.5) stride - 0.5.
    """
    height, width = image.shape[:2]
    strongest = np.clip(np.asarray(heatmaps, np.float32).max(0), 0, 1)
    large = cv2.resize(strongest, (width, height), interpolation=cv2.INTER_LINEAR)
    coloured = cv2.cvtColor(cv2.applyColorMap((255 * large).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    share = (opacity * large)[..., None]
    return (image * (1 - share) + coloured * share + 0.5).astype(np.uint8)


def keypoints_tile(
    image: Image,
    keypoints: NDArray[Any],
    skeleton: Skeleton,
    valid: NDArray[Any] | None = None,
    tile_hw: tuple[int, int] = (240, 240),
) -> Image:
    """An image fitted into a tile with its skeleton drawn at the tile's resolution, so small crops stay readable."""
    size_hw = fit_size((image.shape[0], image.shape[1]), tile_hw)
    affine = scaling(size_hw[1] / image.shape[1], size_hw[0] / image.shape[0])
    moved = np.array(keypoints, np.float64)
    moved[:, :2] = move_points(affine, moved[:, :2])
    return draw_keypoints(resize_image(image, size_hw), moved, skeleton, valid)


def contact_sheet(
    tiles: Sequence[tuple[Image, str]],
    columns: int | None = None,
    tile_hw: tuple[int, int] = (240, 240),
    title: str = "",
    legend: Skeleton | None = None,
) -> Image:
    """Lay captioned pictures out in a grid.

    Parameters
    ----------
    tiles:
        (image, caption) pairs; an image is shrunk or enlarged to fit its cell. A caption may have several lines.
    columns:
        How many to a row; left out, the sheet is about as wide as it is high.
    tile_hw:
        Height and width of a picture's cell, without its caption.
    legend:
        A skeleton whose keypoint names are listed with their colours at the foot.
    """
    tile_h, tile_w = tile_hw
    gap, line_h, text_px = 8, 16, 11
    count = max(1, len(tiles))
    columns = min(count, columns or max(1, round(math.sqrt(count * (tile_h + 20) / tile_w))))
    rows = -(-count // columns)
    caption_lines = max([len(_wrap(caption, tile_w, text_px)) for _, caption in tiles] or [0])
    cell_h, cell_w = tile_h + caption_lines * line_h + gap, tile_w + gap
    width = columns * cell_w + gap
    foot = _legend(legend, width) if legend is not None else np.zeros((0, width, 3), np.uint8)
    head_h = 34 if title else gap
    sheet = np.full((head_h + rows * cell_h + len(foot), width, 3), _DARK, np.uint8)
    if title:
        draw_text(sheet, title, (gap + 2, 22), 15, _WHITE)
    for place, (image, caption) in enumerate(tiles):
        top, left = head_h + place // columns * cell_h, gap + place % columns * cell_w
        _put(sheet, image, top, left, tile_hw)
        for line, text in enumerate(_wrap(caption, tile_w, text_px)):
            draw_text(sheet, text, (left + 2, top + tile_h + (line + 1) * line_h - 4), text_px, _GREY)
    sheet[len(sheet) - len(foot) :] = foot
    return sheet


def draw_text(canvas: Image, text: str, origin_xy: tuple[float, float], height_px: int, colour: Rgb) -> None:
    """Write one line of text into ``canvas``, its baseline starting at ``origin_xy``, with a dark edge."""
    place = (round(origin_xy[0]), round(origin_xy[1]))
    scale = height_px / 22
    cv2.putText(canvas, text, place, _FONT, scale, _DARK, 3, cv2.LINE_AA)
    cv2.putText(canvas, text, place, _FONT, scale, colour, 1, cv2.LINE_AA)


def _put(sheet: Image, image: Image, top: int, left: int, tile_hw: tuple[int, int]) -> None:
    size_hw = fit_size((image.shape[0], image.shape[1]), tile_hw)
    top += (tile_hw[0] - size_hw[0]) // 2
    left += (tile_hw[1] - size_hw[1]) // 2
    sheet[top : top + size_hw[0], left : left + size_hw[1]] = resize_image(image, size_hw)


def _legend(skeleton: Skeleton, width: int) -> Image:
    """The names of the keypoints beside their colours, in as many lines as they need."""
    line_h, text_px, gap = 20, 11, 10
    widths = [_text_width(name, text_px) + 34 for name in skeleton.keypoints]
    places: list[tuple[int, int]] = []
    x, line = gap, 0
    for item in widths:
        if x > gap and x + item > width - gap:
            x, line = gap, line + 1
        places.append((x, line))
        x += item
    foot = np.full(((line + 1) * line_h + gap, width, 3), _DARK, np.uint8)
    for index, (left, row) in enumerate(places):
        y = row * line_h + line_h // 2
        _dot(foot, np.array([left + 6.0, y]), skeleton.colour(index), 4.0)
        draw_text(foot, skeleton.keypoints[index], (left + 16, y + 4), text_px, _GREY)
    return foot


def _wrap(text: str, width_px: int, text_px: int) -> list[str]:
    """Split a caption into lines that fit; a long word is cut, since it is mostly a path."""
    lines: list[str] = []
    for given in text.splitlines():
        rest = given
        while rest:
            fits = len(rest)
            while fits > 1 and _text_width(rest[:fits], text_px) > width_px:
                fits -= 1
            lines.append(rest[:fits])
            rest = rest[fits:]
    return lines


def _text_width(text: str, height_px: int) -> int:
    return cv2.getTextSize(text, _FONT, height_px / 22, 1)[0][0]  # type: ignore[no-any-return]


def _fixed(point_xy: NDArray[Any]) -> tuple[int, int]:
    """A point as OpenCV's fixed-point pixels, kept in a range where its line clipping is exact."""
    x, y = np.clip(np.asarray(point_xy, np.float64)[:2], -4000, 20000)
    return round(x * (1 << _SUB_PIXEL_BITS)), round(y * (1 << _SUB_PIXEL_BITS))


def _dot(canvas: Image, point_xy: NDArray[Any], colour: Rgb, radius_px: float) -> None:
    centre, one = _fixed(point_xy), 1 << _SUB_PIXEL_BITS
    cv2.circle(canvas, centre, round((radius_px + 1) * one), _DARK, cv2.FILLED, cv2.LINE_AA, _SUB_PIXEL_BITS)
    cv2.circle(canvas, centre, round(radius_px * one), colour, cv2.FILLED, cv2.LINE_AA, _SUB_PIXEL_BITS)


def _ring(canvas: Image, point_xy: NDArray[Any], colour: Rgb, radius_px: float, line_px: int) -> None:
    radius = round(radius_px * (1 << _SUB_PIXEL_BITS))
    cv2.circle(canvas, _fixed(point_xy), radius, colour, line_px, cv2.LINE_AA, _SUB_PIXEL_BITS)


def _mix(a: Rgb, b: Rgb, share: float = 0.5) -> Rgb:
    red, green, blue = (round(share * x + (1 - share) * y) for x, y in zip(a, b, strict=True))
    return red, green, blue
