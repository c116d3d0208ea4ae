"""Reading the cropped layout: ``simple_anno/keypoints_<split>.json`` and the crops it names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from carkp_carfusion.data.crop import ANNOTATION_FOLDER, annotation_path
from carkp_carfusion.data.tally import Tally
from carkp_carfusion.skeleton import CARFUSION, Skeleton
from carkp_core.errors import DataError


@frozen(eq=False)
class Annotation:
    """One crop: its path relative to the cropped folder and its float32 [K, 3] rows (x, y, valid)."""

    path: str
    rows: NDArray[np.float32]


def cropped_splits(cropped_dir: Path) -> tuple[str, ...]:
    """The splits that have an annotation file."""
    files = sorted((cropped_dir / ANNOTATION_FOLDER).glob("keypoints_*.json"))
    return tuple(path.stem.removeprefix("keypoints_") for path in files)


def read_skeleton(cropped_dir: Path) -> Skeleton:
    """The skeleton that came with the crops; CarFusion's where none is given."""
    path = cropped_dir / ANNOTATION_FOLDER / "skeleton.json"
    return Skeleton.from_json(_read_json(path), where=str(path)) if path.is_file() else CARFUSION


def read_annotations(cropped_dir: Path, split: str, keypoints: int) -> tuple[list[Annotation], Tally]:
    """A split's annotations in the order of their paths; malformed ones are counted.

    Raises
    ------
    DataError
        If the split doesn't exist or its file isn't a JSON object.
    """
    path = annotation_path(cropped_dir, split)
    if not path.is_file():
        found = cropped_splits(cropped_dir)
        raise DataError(
            f"there is no split {split!r} in the cropped data",
            where=str(path),
            seen="no such file",
            allowed=f"one of: {', '.join(found)}" if found else "a folder made by `carkp gen-carfusion-data`",
            remedy="check the split's name" if found else "run `carkp gen-carfusion-data` first",
        )
    value = _read_json(path)
    if not isinstance(value, dict):
        raise DataError(
            "not an annotation file",
            where=str(path),
            seen=type(value).__name__,
            allowed="an object: image path -> rows [x, y, valid]",
        )
    annotations: list[Annotation] = []
    problems: list[tuple[str, str]] = []
    for name in sorted(value):
        rows = parse_rows(value[name], keypoints)
        if rows is None or _leaves_folder(name):
            problems.append(("malformed_annotation", f"{path.name}: {name}"))
        else:
            annotations.append(Annotation(name, rows))
    return annotations, Tally.of(problems)


def parse_rows(value: object, keypoints: int) -> NDArray[np.float32] | None:
    """Rows [x, y, valid] as float32 [K, 3], or None if they aren't that; ``valid`` is 0 or 1."""
    if not isinstance(value, list) or len(value) != keypoints:
        return None
    for row in value:
        if not isinstance(row, list) or len(row) != 3 or not all(isinstance(n, (int, float)) for n in row):
            return None
        if not all(map(math.isfinite, row)) or row[2] not in (0, 1):
            return None
    return np.array(value, np.float32)


def _leaves_folder(name: str) -> bool:
    path = Path(name)
    return path.is_absolute() or ".." in path.parts


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "the file cannot be read as JSON",
            where=str(path),
            seen=str(error),
            remedy="run `carkp gen-carfusion-data` again",
        ) from error
