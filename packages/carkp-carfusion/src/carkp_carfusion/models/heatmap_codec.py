"""The heatmap codec: keypoints to heatmaps and back, with one geometry.

Shapes: ``N`` batch, ``K`` keypoints, ``M`` maps in a row, ``h w`` rows and columns of a heatmap. Cell ``(u, v)``
(column, row) stands for the input pixel ``x = (u + 0.5) * scale - 0.5``, ``y = (v + 0.5) * scale - 0.5``.

Decoding starts from the cell with the highest value (of several, the first in row-major order) and moves off its centre
in one of three ways. Where a cell is not finite it counts as lower than all others. A map without a finite cell decodes
to its first cell with confidence 0, a constant map to a point within the window of its first cell.
"""

from __future__ import annotations

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from carkp_carfusion.heatmap_target import Heatmaps, encode_heatmaps
from carkp_core.errors import ConfigError

__all__ = ["MODES", "HeatmapCodec", "HeatmapDecoder", "encode_heatmaps"]

#: Before a logarithm is taken, values below this share of the peak count as this share of it. The blob ends near it.
LOG_FLOOR = 0.01
#: A curvature (of the logarithm, per cell squared) flatter than this locates nothing.
MIN_CURVATURE = 1e-4


class HeatmapDecoder(nn.Module):
    """Heatmaps ``[N, K, h, w]`` to points ``[N, K, 3]``: x and y in input pixels, and the peak's value as confidence.

    Parameters
    ----------
    scale:
        Input pixels in a cell.
    mode:
        ``"averaged"``: the mean position in the window round the peak, weighted by value (negative values count as 0).
        Near a border the window shrinks on both sides alike, since a one-sided mean would pull the point inwards.

        ``"diff_sign"``: a quarter of a cell towards the higher neighbour, on each axis; along an axis where the peak
        lies on the border it stays.

        ``"dark"``: the top of the paraboloid through the logarithm of the smoothed map (Zhang et al. 2020,
        arXiv:1910.06278), expanded round the peak, or the nearest cell that has neighbours on all sides. Where
        that paraboloid has no top, or has it more than a cell away from the peak, the point stays on the peak.
    kernel_size:
        Side of the window (``averaged``), or of the Gaussian that smooths (``dark``), odd.

    Raises
    ------
    ConfigError
        An unknown mode, an even kernel, a scale that is not positive.
    """

    def __init__(self, scale: float, mode: str = "averaged", kernel_size: int = 5) -> None:
        super().__init__()
        if mode not in MODES:
            raise ConfigError("HeatmapDecoder: unknown mode", seen=repr(mode), allowed=", ".join(MODES))
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError("HeatmapDecoder: an even kernel_size", seen=str(kernel_size), allowed="1, 3, 5, ...")
        if not scale > 0:
            raise ConfigError("HeatmapDecoder: scale is not positive", seen=str(scale), allowed="pixels in a cell")
        self.scale = scale
        self.mode = mode
        self.kernel_size = kernel_size

    @torch.no_grad()
    def forward(self, heatmaps: Tensor) -> Tensor:
        """Decode ``[N, K, h, w]`` of any floating or integer type to float32 ``[N, K, 3]``."""
        lead, (h, w) = heatmaps.shape[:-2], heatmaps.shape[-2:]
        flat = heatmaps.reshape(-1, h, w).float()
        finite = torch.isfinite(flat)
        flat = torch.where(finite, flat, torch.finfo(flat.dtype).min)
        # Row by row, which is several times faster than one search; of equals, torch gives the first.
        row_tops = flat.amax(dim=2)
        confidence, v = row_tops.max(dim=1)
        u = flat[torch.arange(len(flat), device=flat.device), v].argmax(dim=1)
        offset = MODES[self.mode](flat, u, v, self.kernel_size)
        uv_cells = torch.stack([u, v], dim=1) + offset
        xy_pixels = (uv_cells + 0.5) * self.scale - 0.5
        confidence = torch.where(finite.flatten(1).any(dim=1), confidence, 0.0)
        return torch.cat([xy_pixels, confidence[:, None]], dim=1).reshape(*lead, 3)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, mode={self.mode!r}, kernel_size={self.kernel_size}"


def _window(maps: Tensor, u: Tensor, v: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Cut ``[M, 2 radius + 1, 2 radius + 1]`` round the cells ``(u, v)`` out of ``maps [M, h, w]``.

    The second answer, of the same shape, says which of the cells lie inside the map; those outside repeat the border.
    """
    h, w = maps.shape[-2:]
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    cols, rows = u[:, None] + steps, v[:, None] + steps
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((cols >= 0) & (cols < w))[:, None, :]
    index = rows.clamp(0, h - 1)[:, :, None] * w + cols.clamp(0, w - 1)[:, None, :]
    return maps.flatten(1).gather(1, index.flatten(1)).view(index.shape), inside


def averaged_offset(maps: Tensor, u: Tensor, v: Tensor, kernel_size: int) -> Tensor:
    """Return the weighted mean's distance ``[M, 2]`` from the peaks ``(u, v)``, in cells."""
    radius = kernel_size // 2
    h, w = maps.shape[-2:]
    values, _ = _window(maps, u, v, radius)
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    in_cols = steps.abs() <= torch.minimum(u, w - 1 - u)[:, None]
    in_rows = steps.abs() <= torch.minimum(v, h - 1 - v)[:, None]
    weight = torch.where(in_rows[:, :, None] & in_cols[:, None, :], values.clamp(min=0), 0.0)
    # Relative to the peak, so that no sum overflows.
    weight = weight / weight.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    total = weight.sum(dim=(1, 2))
    moment = torch.stack([(weight.sum(1) * steps).sum(1), (weight.sum(2) * steps).sum(1)], dim=1)
    return torch.where((total > 0)[:, None], moment / total.clamp(min=torch.finfo(total.dtype).tiny)[:, None], 0.0)


def diff_sign_offset(maps: Tensor, u: Tensor, v: Tensor, kernel_size: int) -> Tensor:
    """Return a quarter cell towards the higher neighbour, ``[M, 2]``."""
    del kernel_size
    values, inside = _window(maps, u, v, 1)
    du = torch.where(inside[:, 1, 0] & inside[:, 1, 2], values[:, 1, 2] - values[:, 1, 0], 0.0)
    dv = torch.where(inside[:, 0, 1] & inside[:, 2, 1], values[:, 2, 1] - values[:, 0, 1], 0.0)
    return 0.25 * torch.stack([du, dv], dim=1).sign()


def dark_offset(maps: Tensor, u: Tensor, v: Tensor, kernel_size: int) -> Tensor:
    """Return the distance ``[M, 2]`` from the peaks to the tops of the paraboloids through the smoothed logarithms."""
    h, w = maps.shape[-2:]
    if h < 3 or w < 3:
        return torch.zeros(len(maps), 2, device=maps.device)
    centre_u, centre_v = u.clamp(1, w - 2), v.clamp(1, h - 2)
    radius = kernel_size // 2
    values, _ = _window(maps, centre_u, centre_v, radius + 1)
    peak = maps.flatten(1).amax(dim=1).clamp(min=torch.finfo(maps.dtype).tiny)
    values = (values / peak[:, None, None]).clamp(min=0)
    # Smooth along each axis as far as the map reaches on both sides of the three cells that are differenced.
    blurs = _blurs(radius).to(maps)
    across = blurs[torch.minimum(centre_u - 1, w - 2 - centre_u).clamp(max=radius)]
    down = blurs[torch.minimum(centre_v - 1, h - 2 - centre_v).clamp(max=radius)]
    smooth = down @ values @ across.mT
    z = smooth.clamp(min=LOG_FLOOR).log()

    # First and second differences at the window's centre, rows first.
    gu, gv = (z[:, 1, 2] - z[:, 1, 0]) / 2, (z[:, 2, 1] - z[:, 0, 1]) / 2
    huu = z[:, 1, 2] - 2 * z[:, 1, 1] + z[:, 1, 0]
    hvv = z[:, 2, 1] - 2 * z[:, 1, 1] + z[:, 0, 1]
    # Seen from a corner of the map the far diagonal cell lies off the blob and says nothing of a slant.
    slanted = smooth[:, ::2, ::2].amin(dim=(1, 2)) > LOG_FLOOR
    huv = torch.where(slanted, (z[:, 2, 2] - z[:, 2, 0] - z[:, 0, 2] + z[:, 0, 0]) / 4, 0.0)
    determinant = huu * hvv - huv**2
    has_top = (huu < -MIN_CURVATURE) & (hvv < -MIN_CURVATURE) & (determinant > MIN_CURVATURE**2)
    safe = torch.where(has_top, determinant, 1.0)
    step = torch.stack([huv * gv - hvv * gu, huv * gu - huu * gv], dim=1) / safe[:, None]
    offset = step + torch.stack([centre_u - u, centre_v - v], dim=1)
    near = (offset.abs() <= 1).all(dim=1)
    return torch.where((has_top & near)[:, None], offset, 0.0)


def _blurs(radius: int) -> Tensor:
    """Return Gaussian kernels of radius 0 to ``radius``, each at three shifts: ``[radius + 1, 3, 2 radius + 3]``.

    The deviation is the one that OpenCV gives to the widest kernel.
    """
    sigma = 0.3 * (radius - 1) + 0.8
    blurs = torch.zeros(radius + 1, 3, 2 * radius + 3, dtype=torch.float64)
    for reach in range(radius + 1):
        taps = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
        for shift in range(3):
            start = radius - reach + shift
            blurs[reach, shift, start : start + 2 * reach + 1] = taps / taps.sum()
    return blurs


MODES = {"averaged": averaged_offset, "diff_sign": diff_sign_offset, "dark": dark_offset}


@frozen
class HeatmapCodec:
    """Both directions as one value.

    ::

        codec = HeatmapCodec(heatmap_hw=(32, 32), feat_stride=4)
        heatmap, weight = codec.encode(keypoints_xy, valid)   # numpy, [K, h, w] each
        points = codec.decoder()(heatmaps)                    # torch, [N, K, h, w] -> [N, K, 3]
    """

    heatmap_hw: tuple[int, int]
    feat_stride: float = field(default=4, validator=validators.gt(0))
    sigma_cells: float = field(default=1.0, validator=validators.gt(0))
    mode: str = "averaged"
    kernel_size: int = 5

    def encode(self, keypoints_xy: object, valid: object) -> tuple[Heatmaps, Heatmaps]:
        """Draw ``keypoints_xy [K, 2]`` where ``valid [K]``: see :func:`encode_heatmaps`."""
        return encode_heatmaps(keypoints_xy, valid, self.heatmap_hw, self.feat_stride, self.sigma_cells)  # type: ignore[arg-type]

    def decoder(self) -> HeatmapDecoder:
        """Return the module that inverts :meth:`encode`."""
        return HeatmapDecoder(self.feat_stride, self.mode, self.kernel_size)
