"""`CocoKeypoints`: one sample for each annotated object, cut out of its image with a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carkp_carfusion.data.dataset import KeypointDataset, Sample, Transform
from carkp_carfusion.data.geometry import identity
from carkp_carfusion.data.images import decode_image
from carkp_coco_example.annotations import Annotated, read_annotations
from carkp_core.errors import DataError

if TYPE_CHECKING:
    from carkp_core.context import Context


class CocoKeypoints(KeypointDataset):
    """The objects of one category of a file in COCO's keypoint format.

    Number, names, edges and mirror pairs of the keypoints come from the file: nothing here counts them.

    Parameters
    ----------
    annotations:
        The JSON file.
    images:
        The folder of the images that it names.
    category:
        The category's name.
    margin:
        How much wider than the object's box the crop is on each side, as a share of the box.
    transforms, seed, context:
        As in `KeypointDataset`.

    Raises
    ------
    DataError
        When the file cannot be used, or has no object of the category.
    """

    def __init__(
        self,
        annotations: str | Path,
        images: str | Path,
        category: str = "person",
        margin: float = 0.1,
        transforms: Sequence[Transform] | None = None,
        seed: int | None = None,
        context: Context | None = None,
    ) -> None:
        self.images, self.margin = Path(images), margin
        skeleton, self._objects = read_annotations(Path(annotations), category)
        if not self._objects:
            raise DataError("no object has keypoints", where=str(annotations), seen=f"category {category!r}")
        super().__init__(skeleton, len(self._objects), transforms, seed, context)

    def raw(self, index: int) -> Sample:
        """Object ``index`` before any transform. Raises DataError when its image is missing or doesn't decode."""
        found = self._objects[index]
        path = self.images / found.file_name
        image = decode_image(path.read_bytes()) if path.is_file() else None
        if image is None:
            raise DataError("an image is missing or does not decode", where=str(path))
        crop, rows = cut_out(image, found, self.margin)
        height, width = crop.shape[:2]
        return {
            "img": crop,
            "gt_ldmk": rows[:, :2],
            "gt_ldmk_attr": rows[:, 2],
            "transform_xy": identity(),
            "img_name": f"{found.file_name}#{index}",
            "img_height": height,
            "img_width": width,
            "index": index,
        }


def cut_out(
    image: np.ndarray[Any, Any], found: Annotated, margin: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """An object's crop [h, w, 3] and its K rows [x, y, valid] in the crop; a point outside becomes invalid."""
    height, width = image.shape[:2]
    left, top, right, bottom = found.box_ltrb
    wider, taller = margin * (right - left), margin * (bottom - top)
    x0, y0 = max(0, math.floor(left - wider)), max(0, math.floor(top - taller))
    x1, y1 = min(width, math.ceil(right + wider)), min(height, math.ceil(bottom + taller))
    if x1 <= x0 or y1 <= y0:
        raise DataError("a box lies outside its image", where=found.file_name, seen=str(found.box_ltrb))
    rows = found.rows - np.array([x0, y0, 0], np.float32)
    inside = (rows[:, :2] >= 0).all(axis=1) & (rows[:, :2] <= (x1 - x0 - 1, y1 - y0 - 1)).all(axis=1)
    rows[:, 2] *= inside
    return np.ascontiguousarray(image[y0:y1, x0:x1]), rows
