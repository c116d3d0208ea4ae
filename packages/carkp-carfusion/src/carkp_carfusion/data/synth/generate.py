"""Write a generated data set: which frames there are, who draws them, and what was drawn.

A frame depends on (seed, split, sequence, frame) and on the spec's size and difficulty, never on the number of workers
or on how many frames there are. An interrupted run continues: a frame whose label file stands is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import joblib
import numpy as np
from attrs import asdict, evolve, field, frozen

from carkp_carfusion.data.synth.difficulty import DIFFICULTIES
from carkp_carfusion.data.synth.frame import Frame, draw
from carkp_carfusion.data.synth.labels import box_lines, label_lines
from carkp_carfusion.data.synth.place import Place, make_place
from carkp_carfusion.data.synth.scene import make_scene
from carkp_carfusion.data.synth.sensor import encode, expose
from carkp_carfusion.data.synth.sprites import library
from carkp_carfusion.data.synth.types import Image, stream
from carkp_core.errors import DataError
from carkp_core.progress import track

SEQUENCES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": (
            "car_butler1", "car_butler2", "car_craig1", "car_craig2",
            "car_fifth1", "car_fifth2", "car_morewood1", "car_morewood2",
        ),
        "test": ("car_penn1", "car_penn2"),
    }
)  # fmt: skip
#: Cameras of a sequence; their frames take turns.
CAMERAS = 4
#: The record of the spec, so that one folder never mixes two data sets.
RECORD = "synth.json"
MIN_SIZE_WH = (160, 90)
MAX_SIZE_WH = (4096, 4096)


def _pair(size: Sequence[int]) -> tuple[int, int]:
    width, height = size
    return width, height


@frozen
class SynthSpec:
    """What to draw.

    Attributes
    ----------
    frames_train, frames_test : int
        Frames of each split, dealt out to its sequences in turn.
    size : (int, int)
        Width and height in pixels.
    difficulty : str
        A name in `DIFFICULTIES`.
    seed : int
        From 0 up.
    boxes : bool
        Whether to write ``bb`` files as well.
    """

    frames_train: int = 160
    frames_test: int = 40
    size: tuple[int, int] = field(default=(1280, 720), converter=_pair)
    difficulty: str = "normal"
    seed: int = 0
    boxes: bool = False

    def __attrs_post_init__(self) -> None:
        for name in ("frames_train", "frames_test", "seed"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} is negative", seen=str(getattr(self, name)), allowed="0 or more")
        if self.frames_train + self.frames_test == 0:
            raise DataError("no frames were asked for", remedy="give at least one frame to a split")
        if self.difficulty not in DIFFICULTIES:
            raise DataError("no such difficulty", seen=repr(self.difficulty), allowed=", ".join(DIFFICULTIES))
        if not all(low <= side <= high for side, low, high in zip(self.size, MIN_SIZE_WH, MAX_SIZE_WH, strict=True)):
            raise DataError(
                "cannot draw frames of this size",
                seen="x".join(map(str, self.size)),
                allowed=f"{'x'.join(map(str, MIN_SIZE_WH))} to {'x'.join(map(str, MAX_SIZE_WH))} (width x height)",
                remedy="choose a size in that range, e.g. 1280x720",
            )


@frozen
class FrameId:
    """A frame's place in the data set; ``number`` counts within the sequence from 0."""

    split: str
    sequence: str
    number: int

    @property
    def stem(self) -> str:
        """The file name without its suffix: ``<cam>_<frame>``."""
        return f"{1 + self.number % CAMERAS}_{1 + self.number:05d}"


@frozen
class SynthReport:
    """What a data set holds after `generate`.

    Attributes
    ----------
    frames_train, frames_test : int
    cars : int
        Labelled cars.
    visible, occluded, self_occluded : int
        Points by visibility 1, 2, 3, in and out of the picture.
    outside : int
        Points that lie outside the picture, of any visibility.
    kept : int
        Frames that an earlier run had written.
    """

    frames_train: int = 0
    frames_test: int = 0
    cars: int = 0
    visible: int = 0
    occluded: int = 0
    self_occluded: int = 0
    outside: int = 0
    kept: int = 0

    def __add__(self, other: SynthReport) -> SynthReport:
        mine, theirs = asdict(self), asdict(other)
        return SynthReport(**{name: mine[name] + theirs[name] for name in mine})

    def to_json(self) -> dict[str, int]:
        """Plain counts."""
        return dict(asdict(self))


def frame_ids(spec: SynthSpec) -> Iterator[FrameId]:
    """All frames of a spec, train first; a sequence gets every n-th frame of its split."""
    for split, count in (("train", spec.frames_train), ("test", spec.frames_test)):
        sequences = SEQUENCES[split]
        for index in range(count):
            yield FrameId(split, sequences[index % len(sequences)], index // len(sequences))


def generate(out: Path, spec: SynthSpec, num_workers: int = 1) -> SynthReport:
    """Draw the data set ``spec`` into the folder ``out``.

    Parameters
    ----------
    out : Path
        Created when missing. A folder that holds part of the same data set is completed.
    spec : SynthSpec
    num_workers : int
        Processes; the result doesn't depend on it.

    Raises
    ------
    DataError
        The folder cannot be used, or holds other data.
    """
    out = Path(out)
    if num_workers < 1:
        raise DataError("too few workers", seen=str(num_workers), allowed="1 or more")
    _prepare(out, spec)
    frames = list(frame_ids(spec))
    if num_workers == 1:
        threads = cv2.getNumThreads()
        try:
            parts = [write_frame(out, spec, frame) for frame in track(frames, "drawing frames")]
        finally:
            cv2.setNumThreads(threads)
    else:
        pool = joblib.Parallel(n_jobs=num_workers, return_as="generator_unordered")
        done = pool(joblib.delayed(write_frame)(out, spec, frame) for frame in frames)
        parts = list(track(done, "drawing frames", total=len(frames)))
    return sum(parts, SynthReport())


def render_frame(spec: SynthSpec, frame: FrameId) -> tuple[Image, bytes, Frame]:
    """Draw one frame: the picture uint8 [H, W, 3] (blue, green, red), its JPEG bytes, and what was drawn."""
    difficulty = DIFFICULTIES[spec.difficulty]
    place = _place(spec.seed, frame.split, frame.sequence)
    rng = stream(spec.seed, frame.split, frame.sequence, frame.number)
    scene = make_scene(place, spec.size, difficulty, library(spec.seed, frame.split), rng)
    drawn = draw(scene, difficulty.min_visible, rng)
    picture = expose(drawn.picture, difficulty, rng)
    return picture, encode(picture, difficulty, rng), drawn


def write_frame(out: Path, spec: SynthSpec, frame: FrameId) -> SynthReport:
    """Draw and write one frame, unless it is there already; the counts of that frame."""
    cv2.setNumThreads(1)
    folder = out / frame.split / frame.sequence
    image, labels = folder / "images_jpg" / f"{frame.stem}.jpg", folder / "gt" / f"{frame.stem}.txt"
    if labels.exists() and image.exists():
        return evolve(_count(labels.read_text(), spec, frame), kept=1)
    _, jpeg, drawn = render_frame(spec, frame)
    text = label_lines(drawn.labels)
    _write(image, jpeg)
    if spec.boxes:
        _write(folder / "bb" / f"{frame.stem}.txt", box_lines(drawn.labels).encode())
    _write(labels, text.encode())  # last: its presence says that the frame is complete
    return _count(text, spec, frame)


@lru_cache(maxsize=16)
def _place(seed: int, split: str, sequence: str) -> Place:
    return make_place(seed, split, sequence, SEQUENCES[split].index(sequence) + (split == "test"))


def _count(text: str, spec: SynthSpec, frame: FrameId) -> SynthReport:
    """The counts of one label file."""
    rows = np.array([line.split(",") for line in text.split()], float).reshape(-1, 5)
    seen = np.bincount(rows[:, 4].astype(int), minlength=4)
    width, height = spec.size
    inside = (rows[:, 0] >= 0) & (rows[:, 0] < width) & (rows[:, 1] >= 0) & (rows[:, 1] < height)
    return SynthReport(
        frames_train=int(frame.split == "train"),
        frames_test=int(frame.split == "test"),
        cars=len(np.unique(rows[:, 3])),
        visible=int(seen[1]),
        occluded=int(seen[2]),
        self_occluded=int(seen[3]),
        outside=int((~inside).sum()),
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _prepare(out: Path, spec: SynthSpec) -> None:
    """Make the folder, or see that it may be continued, and leave the spec's record in it."""
    if out.exists() and not out.is_dir():
        raise DataError("the output is not a folder", where=str(out), remedy="name a folder that is new or empty")
    record = out / RECORD
    if record.exists():
        _check_same(record, spec)
    elif any((out / split).exists() for split in SEQUENCES):
        raise DataError(
            "the folder holds data that this generator did not write",
            where=str(out),
            remedy="name a folder that is new or empty",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(record, (json.dumps(_recorded(spec), indent=2) + "\n").encode())
    except OSError as error:
        raise DataError(
            f"cannot write here: {error.strerror}", where=str(out), remedy="choose a folder that you may write to"
        ) from error


def _recorded(spec: SynthSpec) -> dict[str, Any]:
    return {"generator": "synth-carfusion", "version": 1, **asdict(spec), "size": list(spec.size)}


def _check_same(record: Path, spec: SynthSpec) -> None:
    try:
        found = json.loads(record.read_text())
        if not isinstance(found, dict):
            raise ValueError("not a mapping")
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read the record of the data set: {error}",
            where=str(record),
            remedy="delete the folder, or name another",
        ) from error
    wanted = _recorded(spec)
    counts = ("frames_train", "frames_test")
    differing = [name for name in wanted if name not in counts and found.get(name) != wanted[name]]
    differing += [name for name in counts if int(found.get(name, 0)) > wanted[name]]
    if differing:
        raise DataError(
            "the folder holds another generated data set",
            where=str(record.parent),
            seen=", ".join(f"{name}={found.get(name)!r}" for name in differing),
            allowed=", ".join(f"{name}={wanted[name]!r}" for name in differing),
            remedy="name another folder, or delete this one",
        )
