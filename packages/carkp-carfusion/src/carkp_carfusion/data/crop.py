"""Cropping: raw frames -> one JPEG per car and one annotation file per split (``carkp gen-carfusion-data``).

::

    <out>/{train,test}/<sequence>/<cam>_<frame>_car<car_id>.jpg
    <out>/simple_anno/keypoints_{train,test}.json     path relative to <out> -> K rows [x, y, valid]
    <out>/simple_anno/skeleton.json                   what the K rows are
    <out>/.carkp/                                     journals, for going on after an interruption

Each crop is written under a temporary name and renamed, and the annotation file last, so nothing is ever half
written. The work is spread over processes by joblib; inside ``joblib.parallel_config("dask")`` or ``("ray")`` it
runs on that cluster, which needs both folders on a shared file system.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import joblib
from attrs import asdict, frozen

from carkp_carfusion.data.boxes import (
    Box,
    BoxRules,
    assign_boxes,
    hull_of,
    parse_boxes,
    rows_in_window,
    widen,
    window_of,
)
from carkp_carfusion.data.files import make_folder, only_writer, write_bytes, write_compact_json
from carkp_carfusion.data.images import Image, decode_image, encode_jpeg
from carkp_carfusion.data.journal import CropRecord, FrameRecord, Journal, crops_intact, source_state
from carkp_carfusion.data.raw import SPLITS, Frame, LabelledCar, find_frames, find_splits, other_splits, read_labels
from carkp_carfusion.data.tally import Tally
from carkp_carfusion.skeleton import CARFUSION, Skeleton
from carkp_core.errors import DataError
from carkp_core.progress import progress

T = TypeVar("T")

#: Frames handed to each process between two entries in the journal.
FRAMES_PER_ROUND = 8

JPEG_QUALITY = 95

ANNOTATION_FOLDER = "simple_anno"


@frozen
class SplitReport:
    """What cropping left of one split; ``reused`` frames were done by an earlier run."""

    frames: int
    reused: int
    crops: int
    annotations: str


@frozen
class CropReport:
    """The outcome of `crop_dataset`."""

    out_dir: Path
    splits: dict[str, SplitReport]
    skipped: Tally

    @property
    def written(self) -> int:
        """Crops that now exist and are annotated."""
        return sum(split.crops for split in self.splits.values())

    def to_json(self) -> dict[str, Any]:
        """The command's JSON result."""
        return {
            "out_dir": str(self.out_dir),
            "written": self.written,
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "skipped": self.skipped.counts(),
            "examples": {reason: list(skipped.examples) for reason, skipped in self.skipped.reasons.items()},
        }


def crop_dataset(
    src_dir: Path,
    out_dir: Path,
    num_workers: int = 1,
    skeleton: Skeleton = CARFUSION,
    rules: BoxRules | None = None,
) -> CropReport:
    """Crop every labelled car of a raw data set.

    Frames that an earlier run finished are not done again; the result is the same bytes either way.

    Raises
    ------
    DataError
        If ``src_dir`` has no split or is ``out_dir``, or another process writes to ``out_dir``.
    """
    rules = rules or BoxRules()
    if src_dir.resolve() == out_dir.resolve():
        raise DataError(
            "the crops would be written among the raw frames",
            where=str(out_dir),
            remedy="give --out-dir a folder of its own",
        )
    present = find_splits(src_dir)
    tallies = [Tally.of([("missing_split", str(src_dir / split)) for split in SPLITS if split not in present])]
    tallies.append(other_splits(src_dir))
    reports: dict[str, SplitReport] = {}
    with only_writer(out_dir / ".carkp"):
        write_compact_json(out_dir / ANNOTATION_FOLDER / "skeleton.json", skeleton.to_json())
        for split in present:
            frames, tally = find_frames(src_dir, split)
            records, reused = _crop_split(split, frames, out_dir, num_workers, skeleton, rules)
            annotations = annotation_path(out_dir, split)
            rows = {crop.path: crop.rows for record in records for crop in record.crops}
            write_compact_json(annotations, rows)
            tallies += [tally, *(record.tally for record in records)]
            reports[split] = SplitReport(len(frames), reused, len(rows), str(annotations))
    return CropReport(out_dir, reports, Tally.total(tallies))


def annotation_path(cropped_dir: Path, split: str) -> Path:
    """Where a split's annotations lie in the cropped layout."""
    return cropped_dir / ANNOTATION_FOLDER / f"keypoints_{split}.json"


def _crop_split(
    split: str, frames: list[Frame], out_dir: Path, num_workers: int, skeleton: Skeleton, rules: BoxRules
) -> tuple[list[FrameRecord], int]:
    """The records of all frames in order, and how many of them an earlier run had made."""
    header = {"journal": 1, "quality": JPEG_QUALITY, "rules": asdict(rules), "skeleton": skeleton.to_json()}
    journal = Journal(out_dir / ".carkp" / f"crop_{split}.jsonl", header)
    done = journal.read()
    written = {crop.path for record in done.values() for crop in record.crops}
    records = {frame.key: done[frame.key] for frame in frames if _still_good(frame, done, out_dir)}
    reused = len(records)
    journal.start(records.values())
    for folder in {frame.sequence for frame in frames}:
        make_folder(out_dir / split / folder)
    todo = [frame for frame in frames if frame.key not in records]
    with (
        joblib.Parallel(n_jobs=max(1, num_workers)) as parallel,
        progress(f"cropping {split}", len(frames)) as advance,
    ):
        advance(reused)
        for batch in in_batches(todo, FRAMES_PER_ROUND * max(1, num_workers)):
            fresh = parallel(joblib.delayed(crop_frame)(frame, out_dir, skeleton, rules) for frame in batch)
            journal.append(fresh)
            records.update((record.key, record) for record in fresh)
            advance(len(batch))
    for path in written - {crop.path for record in records.values() for crop in record.crops}:
        (out_dir / path).unlink(missing_ok=True)  # its frame or its car is gone
    return [records[frame.key] for frame in frames], reused


def _still_good(frame: Frame, done: dict[str, FrameRecord], out_dir: Path) -> bool:
    record = done.get(frame.key)
    return record is not None and record.sources == _sources(frame) and crops_intact(record, out_dir)


def _sources(frame: Frame) -> tuple[tuple[int, int], ...]:
    return source_state((frame.image, frame.labels, frame.boxes))


def in_batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def crop_frame(
    frame: Frame, out_dir: Path, skeleton: Skeleton = CARFUSION, rules: BoxRules | None = None
) -> FrameRecord:
    """Write the crops of one frame; a pure function of the frame's files but for the crops it writes."""
    rules = rules or BoxRules()
    sources = _sources(frame)
    cars, tally = read_labels(frame, skeleton)
    if not cars:
        return FrameRecord(frame.key, sources, (), tally)
    image = _read(frame)
    if image is None:
        place = f"{frame.split}/{frame.sequence}/images_jpg/{frame.image.name}"
        return FrameRecord(frame.key, sources, (), tally + Tally.of([("unreadable_image", place)]))
    boxes, box_tally = choose_boxes(frame, cars, image.shape[1], image.shape[0], rules)
    crops: list[CropRecord] = []
    problems: list[tuple[str, str]] = []
    for car in cars:
        crop, problem = _crop_car(frame, car, boxes.get(car.car_id), image, out_dir, rules)
        crops += [crop] if crop else []
        problems += [(problem, f"{frame.key} car {car.car_id}")] if problem else []
    return FrameRecord(frame.key, sources, tuple(crops), tally + box_tally + Tally.of(problems))


def _read(frame: Frame) -> Image | None:
    try:
        return decode_image(frame.image.read_bytes())
    except OSError:
        return None


def choose_boxes(
    frame: Frame, cars: list[LabelledCar], width: int, height: int, rules: BoxRules
) -> tuple[dict[int, Box], Tally]:
    """Car id -> the box to cut out, for each car with a valid point: from ``bb/``, else the widened hull."""
    hulls = {car.car_id: hull_of(car, width, height) for car in cars}
    given, tally = _read_boxes(frame, hulls, rules)
    return {
        car_id: given[car_id] if car_id in given else widen(hull, rules)
        for car_id, hull in hulls.items()
        if hull is not None
    }, tally


def _read_boxes(frame: Frame, hulls: dict[int, Box | None], rules: BoxRules) -> tuple[dict[int, Box], Tally]:
    if frame.boxes is None:
        return {}, Tally()
    place = f"{frame.split}/{frame.sequence}/bb/{frame.boxes.name}"
    try:
        text = frame.boxes.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        return {}, Tally.of([("unreadable_boxes", f"{place}: {error.strerror}")])
    boxes, parse_tally = parse_boxes(text, place)
    given, assign_tally = assign_boxes(boxes, hulls, rules, place)
    return given, parse_tally + assign_tally


def _crop_car(
    frame: Frame, car: LabelledCar, box: Box | None, image: Image, out_dir: Path, rules: BoxRules
) -> tuple[CropRecord | None, str | None]:
    """Write one car's crop, or say why there is none."""
    height, width = image.shape[:2]
    if box is None:
        return None, "too_few_points"
    left, top, right, bottom = window = window_of(box, width, height)
    rows = rows_in_window(car, window, width, height)
    if rows[:, 2].sum() < rules.min_valid_points:
        return None, "too_few_points"
    if min(right - left, bottom - top) < rules.min_side_px:
        return None, "too_small"
    data = encode_jpeg(image[top:bottom, left:right], JPEG_QUALITY)
    path = f"{frame.split}/{frame.sequence}/{frame.stem}_car{car.car_id}.jpg"
    write_bytes(out_dir / path, data)
    return CropRecord(path, len(data), [[x, y, int(valid)] for x, y, valid in rows.tolist()]), None
