"""Galleries: labelled pictures out of raw, cropped or packed data alike, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from carkp_carfusion.data.boxes import BoxRules, window_of
from carkp_carfusion.data.crop import choose_boxes
from carkp_carfusion.data.cropped import Annotation, cropped_splits, read_annotations, read_skeleton
from carkp_carfusion.data.images import Image, decode_image
from carkp_carfusion.data.lmdb_store import PackStore
from carkp_carfusion.data.raw import SPLITS, Frame, find_frames, read_labels
from carkp_carfusion.skeleton import CARFUSION, Skeleton
from carkp_core.errors import DataError


@frozen(eq=False)
class LabelledObject:
    """One object in a picture: float [K, 2] points, bool [K] validity, and its crop where it has one."""

    points_xy: NDArray[np.floating]
    valid: NDArray[np.bool_]
    window: tuple[int, int, int, int] | None = None
    label: str = ""


@frozen(eq=False)
class Picture:
    """An image with its labelled objects."""

    image: Image
    objects: tuple[LabelledObject, ...]
    caption: str


@frozen(eq=False)
class Gallery:
    """The pictures of one split. ``picture(i)`` is None when the image of entry ``i`` cannot be read."""

    kind: str
    split: str
    skeleton: Skeleton
    count: int
    picture: Callable[[int], Picture | None]


def open_galleries(path: Path, split: str | None = None) -> tuple[Gallery, ...]:
    """Find out what kind of data lies at ``path`` and open its splits, or the one named.

    Raises
    ------
    DataError
        If it is no data set of carkp's, or has no such split.
    """
    found = _openers(path)
    if not found:
        raise DataError(
            "no data set found here",
            where=str(path),
            seen="none of the layouts" if path.is_dir() else "a file" if path.exists() else "no such folder",
            allowed=(
                "raw (<path>/{train,test}/<sequence>/images_jpg), cropped (<path>/simple_anno/keypoints_*.json) "
                "or packed data (<path>/*_lmdb, or such a folder itself)"
            ),
        )
    if split is not None and split not in found:
        raise DataError(f"there is no split {split!r}", where=str(path), allowed=f"one of: {', '.join(found)}")
    return tuple(found[name]() for name in found if split in (None, name))


def _openers(path: Path) -> dict[str, Callable[[], Gallery]]:
    """Split -> what opens it."""
    if (path / "data.mdb").is_file():
        return {path.name.removesuffix("_lmdb"): lambda: packed_gallery(path)}
    packs = [child for child in sorted(path.glob("*_lmdb")) if (child / "data.mdb").is_file()]
    if packs:
        return {pack.name.removesuffix("_lmdb"): _bind(packed_gallery, pack) for pack in packs}
    if cropped_splits(path):
        return {name: _bind(cropped_gallery, path, name) for name in cropped_splits(path)}
    if any((path / name).is_dir() and any((path / name).glob("*/images_jpg")) for name in SPLITS):
        return {name: _bind(raw_gallery, path, name) for name in SPLITS if (path / name).is_dir()}
    return {}


def _bind(opener: Callable[..., Gallery], *arguments: Any) -> Callable[[], Gallery]:
    return lambda: opener(*arguments)


def packed_gallery(path: Path) -> Gallery:
    """The samples of a packed data set."""
    store = PackStore(path)
    header = store.header()

    def picture(index: int) -> Picture | None:
        sample = store.sample(index)
        image = decode_image(sample.image)
        return None if image is None else _crop_picture(image, sample.rows, f"{index}: {sample.name}")

    return Gallery("packed", header.split, header.skeleton, header.count, picture)


def cropped_gallery(path: Path, split: str) -> Gallery:
    """The crops of a cropped data set."""
    skeleton = read_skeleton(path)
    annotations: Sequence[Annotation] = read_annotations(path, split, len(skeleton))[0]

    def picture(index: int) -> Picture | None:
        annotation = annotations[index]
        try:
            image = decode_image((path / annotation.path).read_bytes())
        except OSError:
            return None
        return None if image is None else _crop_picture(image, annotation.rows, annotation.path)

    return Gallery("cropped", split, skeleton, len(annotations), picture)


def raw_gallery(path: Path, split: str) -> Gallery:
    """The frames of a raw data set, with the crop that each car would get."""
    frames = find_frames(path, split)[0]
    return Gallery("raw", split, CARFUSION, len(frames), lambda index: _frame_picture(frames[index]))


def _frame_picture(frame: Frame) -> Picture | None:
    try:
        image = decode_image(frame.image.read_bytes())
    except OSError:
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    cars = read_labels(frame)[0]
    boxes = choose_boxes(frame, cars, width, height, BoxRules())[0]
    objects = tuple(
        LabelledObject(
            car.points_xy,
            car.valid(width, height),
            window_of(boxes[car.car_id], width, height) if car.car_id in boxes else None,
            str(car.car_id),
        )
        for car in cars
    )
    return Picture(image, objects, f"{frame.sequence}/{frame.stem}: {len(cars)} cars")


def _crop_picture(image: Image, rows: NDArray[np.float32], name: str) -> Picture:
    valid = rows[:, 2] > 0
    caption = f"{name}\n{image.shape[1]}x{image.shape[0]}, {int(valid.sum())} of {len(rows)} points"
    return Picture(image, (LabelledObject(rows[:, :2], valid),), caption)
