"""The raw CarFusion layout.

::

    <root>/{train,test}/<sequence>/images_jpg/<cam>_<frame>.jpg
                                   gt/<cam>_<frame>.txt     one point a line: x,y,keypoint_id,car_id,visibility
                                   bb/<cam>_<frame>.txt     optional, see `carkp_carfusion.data.boxes`

The reader never stops at a bad file or line: each is counted in a `Tally` and the rest is used.
Shape legend: K keypoints of the skeleton; coordinates are pixels, an integer is a pixel's centre.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from carkp_carfusion.data.images import IMAGE_SUFFIXES
from carkp_carfusion.data.tally import Tally
from carkp_carfusion.skeleton import CARFUSION, CARFUSION_RAW_IDS, Skeleton
from carkp_core.errors import DataError

#: The splits of the layout, in the order they are processed.
SPLITS = ("train", "test")

#: Visible, occluded, self-occluded: all three are usable points.
VISIBILITIES = (1, 2, 3)


@frozen
class Frame:
    """One labelled image of the raw layout; ``stem`` is ``<cam>_<frame>``."""

    split: str
    sequence: str
    stem: str
    image: Path
    labels: Path
    boxes: Path | None = None

    @property
    def key(self) -> str:
        """``<split>/<sequence>/<stem>``, unique in a data set."""
        return f"{self.split}/{self.sequence}/{self.stem}"


@frozen(eq=False)
class LabelledCar:
    """The labelled points of one car in one frame.

    Attributes
    ----------
    points_xy: float64 [K, 2], zero where not labelled.
    labelled: bool [K].
    """

    car_id: int
    points_xy: NDArray[np.float64]
    labelled: NDArray[np.bool_]

    def valid(self, width: int, height: int) -> NDArray[np.bool_]:
        """Bool [K]: labelled and inside an image of this size (0 <= x < width, 0 <= y < height)."""
        x, y = self.points_xy.T
        return self.labelled & (x >= 0) & (x < width) & (y >= 0) & (y < height)


def find_splits(root: Path) -> tuple[str, ...]:
    """The splits whose folders exist under ``root``.

    Raises
    ------
    DataError
        If there are none.
    """
    if not root.is_dir():
        problem = "the raw data is a folder, not a file" if root.exists() else "the raw data folder does not exist"
        raise DataError(problem, where=str(root), remedy="check --src-data-path")
    found = tuple(split for split in SPLITS if (root / split).is_dir())
    if not found:
        below = [child.name for child in sorted(root.iterdir()) if any((child / split).is_dir() for split in SPLITS)]
        raise DataError(
            "no split found in the raw data folder",
            where=str(root),
            seen=", ".join(sorted(child.name for child in root.iterdir())[:8]) or "an empty folder",
            allowed="<root>/{train,test}/<sequence>/{images_jpg,gt}",
            remedy=f"point --src-data-path at {root / below[0]}" if below else "check --src-data-path",
        )
    return found


def other_splits(root: Path) -> Tally:
    """Folders beside the splits that hold sequences: a split under a name that the layout does not have."""
    folders = (path for path in sorted(root.iterdir()) if path.is_dir() and path.name not in SPLITS)
    odd = [folder for folder in folders if any(folder.glob("*/images_jpg")) or any(folder.glob("*/gt"))]
    return Tally.of(("unknown_split", str(folder)) for folder in odd)


def find_frames(root: Path, split: str) -> tuple[list[Frame], Tally]:
    """All frames of a split that have an image and labels, in a fixed order, and what is missing."""
    frames: list[Frame] = []
    problems: list[tuple[str, str]] = []
    sequences = sorted(path for path in (root / split).iterdir() if path.is_dir() and not path.name.startswith("."))
    if not sequences:
        problems.append(("empty_folder", split))
    for folder in sequences:
        place = f"{split}/{folder.name}"
        images = _files(folder / "images_jpg", IMAGE_SUFFIXES)
        labels = _files(folder / "gt", (".txt",))
        boxes = _files(folder / "bb", (".txt",))
        problems += [
            ("other_file", f"{place}/images_jpg/{name}") for name in _others(folder / "images_jpg", IMAGE_SUFFIXES)
        ]
        problems += [("other_file", f"{place}/gt/{name}") for name in _others(folder / "gt", (".txt",))]
        if not images and not labels:
            problems.append(("empty_folder", place))
        problems += [("missing_labels", f"{place}/gt/{stem}.txt") for stem in sorted(images.keys() - labels.keys())]
        orphans = (labels.keys() | boxes.keys()) - images.keys()
        problems += [("missing_image", f"{place}/images_jpg/{stem}.jpg") for stem in sorted(orphans)]
        frames += [
            Frame(split, folder.name, stem, images[stem], labels[stem], boxes.get(stem))
            for stem in sorted(images.keys() & labels.keys())
        ]
    return frames, Tally.of(problems)


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Stem -> path of the folder's files with one of the endings; hidden files are left out."""
    if not folder.is_dir():
        return {}
    files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes)
    return {path.stem: path for path in files if not path.name.startswith(".") and path.is_file()}


def _others(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the folder's files with other endings; hidden ones are left out."""
    if not folder.is_dir():
        return []
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return [path.name for path in files if path.suffix.lower() not in suffixes]


def read_labels(frame: Frame, skeleton: Skeleton = CARFUSION) -> tuple[list[LabelledCar], Tally]:
    """The labelled cars of a frame, by car id."""
    place = f"{frame.split}/{frame.sequence}/gt/{frame.labels.name}"
    try:
        text = frame.labels.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        return [], Tally.of([("unreadable_labels", f"{place}: {error.strerror}")])
    cars, tally = parse_labels(text, place, skeleton)
    return cars, tally if cars else tally + Tally.of([("empty_labels", place)])


def parse_labels(text: str, place: str, skeleton: Skeleton = CARFUSION) -> tuple[list[LabelledCar], Tally]:
    """Parse label lines ``x,y,keypoint_id,car_id,visibility``.

    Numbers may be written as floats, blank lines and further columns are passed over. A line with another
    keypoint id or visibility, or a number that isn't finite, is malformed. The points that the skeleton doesn't
    keep are dropped without a word.
    """
    index_of = skeleton.index_of_raw_id()
    points: dict[int, dict[int, tuple[float, float]]] = {}
    problems: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parsed = _parse_line(line)
        if parsed is None:
            problems.append(("malformed_line", f"{place}:{number}: {line.strip()[:60]}"))
            continue
        x, y, raw_id, car_id = parsed
        car = points.setdefault(car_id, {})
        if raw_id in car:
            problems.append(("duplicate_point", f"{place}:{number}: keypoint {raw_id} of car {car_id}"))
        else:
            car[raw_id] = (x, y)
    cars = []
    for car_id, found in sorted(points.items()):
        points_xy = np.zeros((len(skeleton), 2))
        labelled = np.zeros(len(skeleton), bool)
        for raw_id, xy in found.items():
            if raw_id in index_of:
                points_xy[index_of[raw_id]] = xy
                labelled[index_of[raw_id]] = True
        cars.append(LabelledCar(car_id, points_xy, labelled))
    return cars, Tally.of(problems)


def _parse_line(line: str) -> tuple[float, float, int, int] | None:
    columns = line.split(",")
    if len(columns) < 5:
        return None
    try:
        x, y, raw_id, car_id, visibility = (float(column) for column in columns[:5])
    except ValueError:
        return None
    if not (math.isfinite(x) and math.isfinite(y) and car_id.is_integer()):
        return None
    if raw_id not in CARFUSION_RAW_IDS or visibility not in VISIBILITIES:
        return None
    return x, y, int(raw_id), int(car_id)
