"""Keypoints to heatmaps: the half of the codec that data workers run, in plain numpy.

Shapes: ``K`` keypoints, ``h w`` rows and columns of a heatmap. Cell ``u`` of a row stands for the input pixel
``x = (u + 0.5) * feat_stride - 0.5`` (an integer coordinate is a pixel's centre), and a keypoint lies between cells:
it is never rounded to one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The blob ends this many standard deviations from the keypoint.
RADIUS_SIGMAS = 3.0
BLOB_WEIGHT = 1.0
BACKGROUND_WEIGHT = 0.1

Heatmaps = NDArray[np.float32]


def pixels_to_cells(xy_pixels: ArrayLike, feat_stride: float) -> NDArray[np.float64]:
    """Map input pixels to heatmap cells: ``u = (x + 0.5) / feat_stride - 0.5``."""
    return (np.asarray(xy_pixels, dtype=np.float64) + 0.5) / feat_stride - 0.5


def cells_to_pixels(uv_cells: ArrayLike, feat_stride: float) -> NDArray[np.float64]:
    """Map heatmap cells to input pixels: ``x = (u + 0.5) * feat_stride - 0.5``."""
    return (np.asarray(uv_cells, dtype=np.float64) + 0.5) * feat_stride - 0.5


def encode_heatmaps(
    keypoints_xy: ArrayLike,
    valid: ArrayLike,
    heatmap_hw: tuple[int, int],
    feat_stride: float,
    sigma_cells: float,
) -> tuple[Heatmaps, Heatmaps]:
    """Draw a Gaussian at each valid keypoint.

    Parameters
    ----------
    keypoints_xy:
        ``[K, 2]``, in input pixels.
    valid:
        ``[K]``: a keypoint counts where this is positive and its coordinates are finite.
    heatmap_hw:
        Rows and columns of a heatmap.
    feat_stride:
        Input pixels in a cell.
    sigma_cells:
        Standard deviation of the Gaussian, in cells.

    Returns
    -------
    heatmap, weight:
        ``[K, h, w]`` each. The heatmap is ``exp(-d**2 / (2 sigma**2))`` of the distance ``d`` between a cell's centre
        and the keypoint where ``d <= 3 sigma``, 0 elsewhere. The weight of a cell's error is 1 on that blob, 0.1
        elsewhere, and 0 in the whole map of a keypoint that is not valid. Neither argument is written to.
    """
    uv = pixels_to_cells(keypoints_xy, feat_stride)
    keep = (np.asarray(valid).reshape(-1) > 0) & np.isfinite(uv).all(axis=1)
    h, w = heatmap_hw
    heatmap = np.zeros((len(uv), h, w), dtype=np.float32)
    weight = np.zeros_like(heatmap)
    weight[keep] = BACKGROUND_WEIGHT

    radius_cells = RADIUS_SIGMAS * sigma_cells
    # A keypoint far outside has no blob; dropping it here also keeps the integers below small.
    near = keep & ((uv > -1 - radius_cells) & (uv < np.array([w, h]) + radius_cells)).all(axis=1)
    (k,) = np.nonzero(near)
    reach = int(np.ceil(radius_cells))
    window = np.arange(-reach, reach + 1)
    centre = np.floor(uv[k] + 0.5).astype(np.int64)
    cols, rows = centre[:, :1] + window, centre[:, 1:] + window  # [k, window] each
    dx2, dy2 = (cols - uv[k, :1]) ** 2, (rows - uv[k, 1:]) ** 2
    distance2 = dy2[:, :, None] + dx2[:, None, :]  # [k, window, window]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((cols >= 0) & (cols < w))[:, None, :]
    i, r, c = np.nonzero(inside & (distance2 <= radius_cells**2))
    cells = k[i], rows[i, r], cols[i, c]
    heatmap[cells] = np.exp(distance2[i, r, c] / (-2.0 * sigma_cells**2))
    weight[cells] = BLOB_WEIGHT
    return heatmap, weight
