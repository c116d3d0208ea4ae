"""Inference on single images: what a config's ``infer_cfg`` builds.

Shape legend: K keypoints, h w heatmap cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carkp_carfusion.data import geometry
from carkp_carfusion.data.images import IMAGE_SUFFIXES, Image, read_image, write_image
from carkp_carfusion.skeleton import CARFUSION, Skeleton, plain_skeleton
from carkp_carfusion.visualize import DrawStyle, draw_keypoints
from carkp_core.errors import ConfigError


class KeypointInference:
    """Reads an image, makes the network's input of it, and draws the keypoints on it at its own size.

    Parameters
    ----------
    transforms:
        The validation transforms. They see a sample without landmarks; ``transform_xy`` records what they do.
    skeleton:
        Names, edges and colours: a ``Skeleton``, or a dict of its arguments. Left out: CarFusion's when the model has
        as many keypoints, else numbered points without edges.
    min_confidence:
        Points below this are neither drawn nor connected. They are in the JSON file all the same.
    """

    suffixes = IMAGE_SUFFIXES

    def __init__(
        self,
        transforms: Sequence[Any],
        skeleton: Skeleton | Mapping[str, Any] | None = None,
        min_confidence: float = 0.0,
    ) -> None:
        self.transforms = tuple(transforms)
        self.skeleton = (
            Skeleton.from_json(skeleton, "infer_cfg.skeleton") if isinstance(skeleton, Mapping) else skeleton
        )
        self.min_confidence = min_confidence

    def read(self, path: Path) -> Image:
        """Read RGB uint8 [H, W, 3]. Raises DataError when the file is missing or no image."""
        return read_image(path)

    def preprocess(self, image: Image) -> dict[str, Any]:
        """Run the transforms.

        Returns
        -------
        dict
            ``img``, float32 [3, H, W] of the network's size; ``transform_xy``, float64 [2, 3], from the image's
            pixels to the network's.
        """
        sample: dict[str, Any] = {
            "img": image,
            "gt_ldmk": np.zeros((0, 2), np.float32),
            "gt_ldmk_attr": np.zeros(0, np.float32),
            "flip_index": (),
            "transform_xy": geometry.identity(),
            "img_name": "",
            "img_height": image.shape[0],
            "img_width": image.shape[1],
            "index": 0,
        }
        rng = np.random.default_rng(0)
        for transform in self.transforms:
            sample = transform(sample, rng)
        if not isinstance(sample["img"], torch.Tensor):
            raise ConfigError(
                "infer_cfg's transforms do not make a tensor",
                where="infer_cfg.transforms",
                seen=", ".join(type(transform).__name__ for transform in self.transforms) or "no transforms",
                remedy="use the validation transforms: Resize, RandomPadLdmkData, ToTensor, Normalize",
            )
        return sample

    def postprocess(self, output: Any, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Map points [K, 3] (x, y in the network's pixels, confidence) back to the image's own pixels.

        Returns
        -------
        dict
            ``width``, ``height`` of the image and ``keypoints``: name, x, y and confidence of each.
        """
        if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[1] != 3:
            seen = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ConfigError(
                "the model's answer is no list of points",
                seen=str(seen),
                allowed="[K, 3]: x, y and confidence",
                remedy="give the model a post_process, for example dict(type='HeatmapDecoder', scale=4)",
            )
        points = output.detach().cpu().double().numpy()
        points_xy = geometry.move_points(geometry.invert(sample["transform_xy"]), points[:, :2])
        names = self._skeleton_of(len(points)).keypoints
        rows = zip(names, points_xy.tolist(), points[:, 2].tolist(), strict=True)
        keypoints = [
            {"name": name, "x": round(x, 4), "y": round(y, 4), "confidence": round(confidence, 6)}
            for name, (x, y), confidence in rows
        ]
        return {"width": sample["img_width"], "height": sample["img_height"], "keypoints": keypoints}

    def draw(self, image: Image, answer: Mapping[str, Any]) -> Image:
        """Draw skeleton, points and confidences (in hundredths) on the image at its own size."""
        points = points_of(answer)
        style = DrawStyle.for_image(image, min_confidence=self.min_confidence, show_confidence=True)
        return draw_keypoints(image, points, self._skeleton_of(len(points)), style=style)

    def write(self, path: Path, picture: Image) -> None:
        """Write a picture as PNG or JPEG."""
        write_image(path, picture)

    def _skeleton_of(self, count: int) -> Skeleton:
        if self.skeleton is None:
            return CARFUSION if count == len(CARFUSION) else plain_skeleton(count)
        if len(self.skeleton) != count:
            raise ConfigError(
                "infer_cfg's skeleton does not fit the model",
                where="infer_cfg.skeleton",
                seen=f"{len(self.skeleton)} keypoints; the model has {count}",
            )
        return self.skeleton


def points_of(answer: Mapping[str, Any]) -> NDArray[np.float64]:
    """The keypoints of an answer as [K, 3]: x, y and confidence."""
    rows = [(point["x"], point["y"], point["confidence"]) for point in answer["keypoints"]]
    return np.array(rows, np.float64).reshape(-1, 3)
