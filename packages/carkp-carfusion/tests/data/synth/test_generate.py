from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from attrs import evolve

from carkp_carfusion.data.synth import DIFFICULTIES, SEQUENCES, SynthReport, SynthSpec, generate, render_frame
from carkp_carfusion.data.synth.generate import RECORD, FrameId, frame_ids
from carkp_core.errors import DataError

SMALL = SynthSpec(frames_train=9, frames_test=2, size=(320, 180), difficulty="hard", seed=3)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != RECORD
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SynthReport]:
    root = tmp_path_factory.mktemp("synth") / "raw"
    return root, generate(root, SMALL)


def test_the_layout_is_the_raw_one(drawn: tuple[Path, SynthReport]) -> None:
    root, _ = drawn
    assert {path.name for path in (root / "train").iterdir()} == set(SEQUENCES["train"])
    assert {path.name for path in (root / "test").iterdir()} == set(SEQUENCES["test"])
    images = sorted(root.glob("*/*/images_jpg/*.jpg"))
    labels = sorted(root.glob("*/*/gt/*.txt"))
    assert len(images) == len(labels) == 11
    assert [path.stem for path in images] == [path.stem for path in labels]
    assert (root / "train/car_butler1/images_jpg/2_00002.jpg").exists()
    assert cv2.imread(str(images[0])).shape == (180, 320, 3)
    assert not list(root.glob("*/*/bb"))


def test_the_report_counts_what_the_files_say(drawn: tuple[Path, SynthReport]) -> None:
    root, report = drawn
    cars, visibility = 0, [0, 0, 0, 0]
    for path in root.glob("*/*/gt/*.txt"):
        rows = np.array([line.split(",") for line in path.read_text().splitlines()], float).reshape(-1, 5)
        cars += len(np.unique(rows[:, 3]))
        for car in np.unique(rows[:, 3]):
            assert list(rows[rows[:, 3] == car, 2]) == list(range(1, 15))
        for value in rows[:, 4].astype(int):
            visibility[value] += 1
    assert (report.frames_train, report.frames_test, report.cars) == (9, 2, cars)
    assert visibility == [0, report.visible, report.occluded, report.self_occluded]
    assert min(visibility[1:]) > 0
    assert report.kept == 0


def test_workers_do_not_change_a_byte(drawn: tuple[Path, SynthReport], tmp_path: Path) -> None:
    root, report = drawn
    assert generate(tmp_path / "raw", SMALL, num_workers=2) == report
    assert contents(tmp_path / "raw") == contents(root)


def test_more_frames_leave_the_first_ones_alone(drawn: tuple[Path, SynthReport], tmp_path: Path) -> None:
    root, _ = drawn
    few = evolve(SMALL, frames_train=3, frames_test=1)
    generate(tmp_path / "raw", few)
    first = contents(tmp_path / "raw")
    grown = generate(tmp_path / "raw", SMALL)
    assert grown.kept == 4
    assert contents(tmp_path / "raw") == contents(root)
    assert first.items() <= contents(root).items()


def test_an_interrupted_run_goes_on(drawn: tuple[Path, SynthReport], tmp_path: Path) -> None:
    root, report = drawn
    generate(tmp_path / "raw", SMALL)
    (tmp_path / "raw/train/car_craig1/gt/1_00001.txt").unlink()
    again = generate(tmp_path / "raw", SMALL)
    assert evolve(again, kept=0) == report
    assert again.kept == 10
    assert contents(tmp_path / "raw") == contents(root)


def test_boxes_are_written_on_request(tmp_path: Path) -> None:
    spec = SynthSpec(frames_train=1, frames_test=0, size=(320, 180), difficulty="easy", boxes=True)
    report = generate(tmp_path, spec)
    lines = (tmp_path / "train/car_butler1/bb/1_00001.txt").read_text().splitlines()
    assert len(lines) == report.cars > 0
    for car, line in enumerate(lines):
        x0, y0, x1, y1, identity = map(float, line.split(","))
        assert 0 <= x0 < x1 <= 319
        assert 0 <= y0 < y1 <= 179
        assert identity == car


def test_seed_split_and_sequence_change_the_picture() -> None:
    spec = SynthSpec(size=(320, 180))
    pictures = [
        render_frame(spec, FrameId("train", "car_craig1", 0))[0],
        render_frame(spec, FrameId("train", "car_craig2", 0))[0],
        render_frame(spec, FrameId("train", "car_craig1", 1))[0],
        render_frame(spec, FrameId("test", "car_penn1", 0))[0],
        render_frame(evolve(spec, seed=1), FrameId("train", "car_craig1", 0))[0],
    ]
    for first in range(len(pictures)):
        for second in range(first):
            assert np.abs(pictures[first].astype(int) - pictures[second]).mean() > 5


def test_easy_frames_show_whole_large_cars() -> None:
    spec = SynthSpec(frames_train=8, frames_test=0, size=(640, 360), difficulty="easy")
    shares = []
    cars = 0
    for frame in frame_ids(spec):
        for label in render_frame(spec, frame)[2].labels:
            cars += 1
            assert np.all((label.points_xy >= 0) & (label.points_xy < [640, 360]))
            shares.append((label.visibility == 2).mean())
            assert max(label.box[2:] - label.box[:2]) > 40
    assert cars >= 24
    assert np.mean(shares) < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (12, 12)}, "cannot draw frames of this size"),
        ({"size": (99999, 720)}, "cannot draw frames of this size"),
        ({"frames_train": -1}, "frames_train is negative"),
        ({"seed": -5}, "seed is negative"),
        ({"frames_train": 0, "frames_test": 0}, "no frames"),
        ({"difficulty": "esay"}, "no such difficulty"),
    ],
)
def test_impossible_specs_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SynthSpec(**change)  # type: ignore[arg-type]


def test_another_data_set_in_the_folder_is_not_touched(drawn: tuple[Path, SynthReport]) -> None:
    root, _ = drawn
    before = contents(root)
    with pytest.raises(DataError, match="another generated data set") as caught:
        generate(root, evolve(SMALL, seed=4))
    assert caught.value.seen == "seed=3"
    assert caught.value.remedy
    with pytest.raises(DataError, match="another generated data set"):
        generate(root, evolve(SMALL, frames_train=2))
    assert contents(root) == before


def test_foreign_data_files_and_unwritable_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real/train").mkdir(parents=True)
    with pytest.raises(DataError, match="did not write"):
        generate(tmp_path / "real", SMALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        generate(tmp_path / "file", SMALL)
    with pytest.raises(DataError, match="cannot write here"):
        generate(tmp_path / "file/below", SMALL)
    with pytest.raises(DataError, match="too few workers"):
        generate(tmp_path / "new", SMALL, num_workers=0)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / RECORD).write_text("{")
    with pytest.raises(DataError, match="cannot read the record"):
        generate(tmp_path / "damaged", SMALL)


def test_the_record_names_the_spec(drawn: tuple[Path, SynthReport]) -> None:
    record = json.loads((drawn[0] / RECORD).read_text())
    assert record["difficulty"] == "hard"
    assert record["size"] == [320, 180]
    assert set(DIFFICULTIES) == {"easy", "normal", "hard"}
