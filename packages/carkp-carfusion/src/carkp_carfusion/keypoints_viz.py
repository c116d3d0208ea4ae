"""A callback that draws what a model predicts while it is evaluated.

Shapes: ``N`` batch, ``K`` keypoints, ``H W`` the input, ``h w`` a heatmap.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carkp_carfusion.models.heatmap_codec import HeatmapDecoder
from carkp_carfusion.skeleton import Skeleton, plain_skeleton
from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback

if TYPE_CHECKING:
    from carkp_core.train.evaluation import Evaluated


class KeypointsViz(Callback):
    """Draw the first batches of an evaluation, one sheet for each, as ``<save_dir>/batch-0000.jpg``.

    Parameters
    ----------
    save_dir:
        The folder of the sheets. An earlier evaluation's are overwritten.
    num_batches:
        How many batches are drawn.
    threshold:
        Keypoints with a confidence below this are left out.
    mean, std:
        What the config's ``Normalize`` subtracts and divides by, to get the pixels back.
    to_yuv:
        Whether the config's ``ToTensor`` makes YUV.
    skeleton:
        Names and connects the keypoints, such as ``carkp_carfusion.skeleton.CARFUSION``; without it they are dots.

    Raises
    ------
    ConfigError
        A skeleton with another number of keypoints than the model.
    """

    def __init__(
        self,
        save_dir: str | Path,
        num_batches: int = 1,
        threshold: float = 0.0,
        mean: float = 128.0,
        std: float = 128.0,
        to_yuv: bool = True,
        skeleton: Skeleton | None = None,
    ) -> None:
        self.save_dir = Path(save_dir)
        self.num_batches = num_batches
        self.threshold = threshold
        self.mean = mean
        self.std = std
        self.to_yuv = to_yuv
        self.skeleton = skeleton

    def on_evaluated(self, evaluated: Evaluated) -> None:
        """Draw the batch if it is one of the first."""
        if evaluated.number >= self.num_batches:
            return
        from carkp_carfusion.data.images import write_image

        write_image(
            self.save_dir / f"{_file_stem(evaluated.number)}.jpg", self.sheet(evaluated.batch, evaluated.output)
        )

    def sheet(self, batch: Any, output: Any) -> NDArray[np.uint8]:
        """Draw a batch (``img [N, 3, H, W]``) with the model's answer (points ``[N, K, 3]``, or heatmaps) to it."""
        from carkp_carfusion.visualize import DrawStyle, contact_sheet, draw_comparison, draw_keypoints

        images = [self.image(image) for image in batch["img"]]
        points = _points(output, batch["img"].shape[-2]).cpu().numpy()
        names = batch.get("img_name") or [""] * len(images)
        skeleton = self._skeleton_for(points.shape[1])
        tiles = []
        for n, (image, name) in enumerate(zip(images, names, strict=True)):
            style = DrawStyle.for_image(image, min_confidence=self.threshold)
            if "gt_ldmk" in batch:
                truth_xy, valid = (torch.as_tensor(batch[key][n]).cpu().numpy() for key in ("gt_ldmk", "gt_ldmk_attr"))
                drawn = draw_comparison(image, points[n], truth_xy, valid, skeleton, style)
            else:
                drawn = draw_keypoints(image, points[n], skeleton, style=style)
            tiles.append((drawn, str(name)))
        return contact_sheet(tiles, legend=skeleton if self.skeleton is not None else None)

    def image(self, normalized: Tensor) -> NDArray[np.uint8]:
        """Return the RGB image, uint8 ``[H, W, 3]``, that became this input ``[3, H, W]``."""
        from carkp_carfusion.data.colour import yuv444_to_rgb

        pixels = (normalized.detach().float().cpu() * self.std + self.mean).round().clamp(0, 255).byte()
        image: NDArray[np.uint8] = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        return yuv444_to_rgb(image) if self.to_yuv else image

    def _skeleton_for(self, keypoints: int) -> Skeleton:
        skeleton = self.skeleton or plain_skeleton(keypoints)
        if len(skeleton) != keypoints:
            raise ConfigError(
                "KeypointsViz: the skeleton does not fit the model",
                seen=f"{len(skeleton)} keypoints in {skeleton.name!r}, {keypoints} predicted",
                remedy="give the data set's own skeleton, or none",
            )
        return skeleton


def _points(output: Any, height: int) -> Tensor:
    """Return points ``[N, K, 3]`` in input pixels, from points or from heatmaps ``[N, K, h, w]``."""
    found: Tensor = output[0] if isinstance(output, (tuple, list)) else output
    if found.ndim == 4:
        found = HeatmapDecoder(height / found.shape[-2])(found)
    return found.detach()


def _file_stem(number: int) -> str:
    """Name a batch so that processes do not overwrite each other's."""
    rank = (
        torch.distributed.get_rank() if torch.distributed.is_available() and torch.distributed.is_initialized() else 0
    )
    return f"batch-{number:04d}" + (f"-process-{rank}" if rank else "")
