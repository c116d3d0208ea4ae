"""COCO's annotation file: categories with keypoint names, images, annotated objects.

Read are ``categories[].keypoints`` and ``.skeleton``, ``images[].file_name`` and ``annotations[].keypoints`` (rows x,
y, v; v > 0 is labelled) with ``bbox`` (x, y, width, height). COCO counts pixels from their corner, carkp from their
centre: a coordinate is read as x - 0.5.

Legend: ``K`` keypoints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen

from carkp_carfusion.skeleton import Skeleton
from carkp_core.errors import DataError


@frozen(eq=False)
class Annotated:
    """One object: its image's file name, its box (left, top, right, bottom) and its K rows [x, y, valid]."""

    file_name: str
    box_ltrb: tuple[float, float, float, float]
    rows: np.ndarray[Any, Any] = field(repr=False)


def read_annotations(path: Path, category: str) -> tuple[Skeleton, tuple[Annotated, ...]]:
    """The skeleton of a category, and its objects that have a labelled keypoint and no crowd, in the file's order.

    Raises
    ------
    DataError
        When the file is missing, malformed, or lacks the category.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [str(c["name"]) for c in content["categories"]]
        if category not in names:
            raise DataError("no such category", where=str(path), seen=category, allowed=", ".join(names))
        chosen = content["categories"][names.index(category)]
        skeleton = skeleton_of(chosen)
        files = {image["id"]: str(image["file_name"]) for image in content["images"]}
        objects = tuple(
            _annotated(entry, files, len(skeleton))
            for entry in content["annotations"]
            if entry["category_id"] == chosen["id"] and entry.get("num_keypoints", 1) and not entry.get("iscrowd", 0)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        seen = f"{type(error).__name__}: {error}"
        raise DataError("not an annotation file in COCO's keypoint format", where=str(path), seen=seen) from error
    return skeleton, objects


def skeleton_of(category: dict[str, Any]) -> Skeleton:
    """Names and edges as they are (edges count from 1); flip pairs are names that differ by left and right."""
    names = [str(name) for name in category["keypoints"]]
    pairs = [
        (names.index(name), names.index(name.replace("left", "right")))
        for name in names
        if "left" in name and name.replace("left", "right") in names
    ]
    edges = [(a - 1, b - 1) for a, b in category.get("skeleton", ())]
    return Skeleton(str(category["name"]), names, flip_pairs=pairs, edges=edges)


def _annotated(entry: dict[str, Any], files: dict[Any, str], count: int) -> Annotated:
    rows = np.asarray(entry["keypoints"], dtype=np.float32).reshape(count, 3)
    rows[:, :2] -= 0.5
    rows[:, 2] = rows[:, 2] > 0
    left, top, width, height = (float(value) for value in entry["bbox"])
    return Annotated(files[entry["image_id"]], (left, top, left + width, top + height), rows)
