from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest

from carkp_carfusion.data.crop import annotation_path, crop_dataset
from carkp_carfusion.data.images import read_image
from carkp_carfusion.skeleton import CARFUSION, Skeleton
from carkp_core.errors import DataError


def annotations(out: Path, split: str = "train") -> dict[str, list[list[float]]]:
    return json.loads(annotation_path(out, split).read_text())


def without_journals(tree: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in tree.items() if not name.startswith(".carkp")}


def test_the_layout_and_the_names(raw_data: Path, tmp_path: Path):
    report = crop_dataset(raw_data, tmp_path / "out")
    assert report.written == 8
    assert not report.skipped
    assert list(annotations(tmp_path / "out", "test")) == [
        "test/car_c/1_0002_car0.jpg",
        "test/car_c/1_0002_car3.jpg",
    ]
    for split in ("train", "test"):
        for name, rows in annotations(tmp_path / "out", split).items():
            assert (tmp_path / "out" / name).is_file()
            assert np.array(rows).shape == (12, 3)
    assert Skeleton.from_json(json.loads((tmp_path / "out/simple_anno/skeleton.json").read_text())) == CARFUSION
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_every_valid_row_points_at_its_dot(raw_data: Path, tmp_path: Path):
    crop_dataset(raw_data, tmp_path / "out")
    for name, rows in annotations(tmp_path / "out").items():
        image = read_image(tmp_path / "out" / name)
        for x, y, valid in rows:
            assert valid == 1
            assert image[int(y), int(x)].min() > 150


def test_the_hull_is_widened_and_clipped(raw_data: Path, tmp_path: Path):
    frame = raw_data / "test/car_c/gt/1_0002.txt"
    frame.write_text("100,50,1,0,1\n200,50,2,0,2\n150,90,3,0,3\n300,190,4,1,1\n319,150,5,1,1\n280,199.5,6,1,1\n")
    crop_dataset(raw_data, tmp_path / "out")
    rows = annotations(tmp_path / "out", "test")
    # 100 x 40 px, 10 % before and 15 % behind: x 90..215, y 46..96.
    assert read_image(tmp_path / "out/test/car_c/1_0002_car0.jpg").shape == (50, 125, 3)
    assert rows["test/car_c/1_0002_car0.jpg"][0] == [10, 4, 1]
    # x 276.1..324.85 and y 145.05..206.925, clipped to the 320 x 200 frame.
    assert read_image(tmp_path / "out/test/car_c/1_0002_car1.jpg").shape == (55, 44, 3)


def test_a_fitting_box_is_taken_as_it_stands(raw_data: Path, tmp_path: Path):
    (raw_data / "test/car_c/bb").mkdir()
    (raw_data / "test/car_c/bb/1_0002.txt").write_text("10.4,20.6,150.2,120,0\n155,50,310,170\nrubbish\n")
    report = crop_dataset(raw_data, tmp_path / "out")
    assert report.skipped.counts() == {"malformed_box": 1}
    assert read_image(tmp_path / "out/test/car_c/1_0002_car0.jpg").shape == (100, 141, 3)
    assert read_image(tmp_path / "out/test/car_c/1_0002_car3.jpg").shape == (120, 155, 3)


def test_points_outside_the_box_are_not_valid(raw_data: Path, tmp_path: Path):
    (raw_data / "test/car_c/bb").mkdir()
    (raw_data / "test/car_c/bb/1_0002.txt").write_text("20,30,100,110,0\n")
    crop_dataset(raw_data, tmp_path / "out")
    rows = np.array(annotations(tmp_path / "out", "test")["test/car_c/1_0002_car0.jpg"])
    inside = (rows[:, 0] >= 0) & (rows[:, 0] < 80) & (rows[:, 1] >= 0) & (rows[:, 1] < 80)
    assert 3 <= inside.sum() < 12
    assert (rows[:, 2] == inside).all()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("10,10,1,5,1\n100,100,2,5,1\n", "too_few_points"),
        ("10,10,1,5,1\n100,100,2,5,1\n-5,50,3,5,1\n", "too_few_points"),
        ("10,10,1,5,1\n100,100,9,5,1\n50,50,14,5,1\n60,60,2,5,1\n", "too_few_points"),
        ("-10,10,1,5,1\n", "too_few_points"),
        ("10,10,1,5,1\n100,20,2,5,1\n50,15,3,5,1\n", "too_small"),
    ],
)
def test_cars_that_are_dropped_are_counted_by_reason(raw_data: Path, tmp_path: Path, labels: str, reason: str):
    path = raw_data / "test/car_c/gt/1_0002.txt"
    path.write_text(path.read_text() + labels)
    report = crop_dataset(raw_data, tmp_path / "out")
    assert report.skipped.counts() == {reason: 1}
    assert report.skipped.reasons[reason].examples == ("test/car_c/1_0002 car 5",)
    assert report.splits["test"].crops == 2


def test_a_side_of_24_pixels_is_enough(raw_data: Path, tmp_path: Path):
    # Hulls of 19 and 18 px become 24 and 23 whole pixels high.
    labels = "".join(f"{x},{y},{k},{car},1\n" for car, h in ((0, 18.4), (1, 17)) for k, (x, y) in enumerate(
        [(50, 50), (150, 50), (100, 50 + h)], start=1))  # fmt: skip
    (raw_data / "test/car_c/gt/1_0002.txt").write_text(labels)
    report = crop_dataset(raw_data, tmp_path / "out")
    assert list(annotations(tmp_path / "out", "test")) == ["test/car_c/1_0002_car0.jpg"]
    assert report.skipped.counts() == {"too_small": 1}


def test_bad_files_are_counted_and_the_rest_is_used(raw_data: Path, tmp_path: Path):
    image = raw_data / "train/car_a/images_jpg/1_0001.jpg"
    image.write_bytes(image.read_bytes()[:500])
    (raw_data / "train/car_a/gt/2_0001.txt").write_text("")
    (raw_data / "train/car_x").mkdir()
    report = crop_dataset(raw_data, tmp_path / "out")
    assert report.written == 4
    assert report.skipped.counts() == {"empty_folder": 1, "unreadable_image": 1, "empty_labels": 1}
    assert report.skipped.reasons["unreadable_image"].examples == ("train/car_a/images_jpg/1_0001.jpg",)


def test_a_missing_split_is_counted(raw_data: Path, tmp_path: Path):
    (raw_data / "test").rename(raw_data / "unused")
    report = crop_dataset(raw_data, tmp_path / "out")
    assert report.skipped.counts() == {"missing_split": 1, "unknown_split": 1}
    assert not annotation_path(tmp_path / "out", "test").exists()


def test_processes_write_the_same_bytes(raw_data: Path, tmp_path: Path, read_tree: Callable[[Path], dict[str, bytes]]):
    crop_dataset(raw_data, tmp_path / "one", num_workers=1)
    crop_dataset(raw_data, tmp_path / "two", num_workers=2)
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two")


def test_the_backend_is_joblibs_choice(raw_data: Path, tmp_path: Path, read_tree: Callable[[Path], dict[str, bytes]]):
    crop_dataset(raw_data, tmp_path / "one")
    with joblib.parallel_config("threading"):
        crop_dataset(raw_data, tmp_path / "two", num_workers=2)
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two")


def test_a_second_run_does_nothing_again(raw_data: Path, tmp_path: Path):
    first = crop_dataset(raw_data, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}
    second = crop_dataset(raw_data, tmp_path / "out")
    assert second.splits["train"].reused == second.splits["train"].frames == 3
    assert (second.written, second.skipped) == (first.written, first.skipped)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}


def test_only_what_changed_is_done_again(raw_data: Path, tmp_path: Path, make_frame: Callable[..., None]):
    crop_dataset(raw_data, tmp_path / "out")
    make_frame(raw_data, "train/car_b/1_0008", {1: (20, 20, 100, 90)})
    (raw_data / "train/car_a/gt/1_0001.txt").write_text("")
    (tmp_path / "out/train/car_a/2_0001_car0.jpg").write_bytes(b"damaged")
    report = crop_dataset(raw_data, tmp_path / "out")
    assert report.splits["train"].reused == 1
    assert set(annotations(tmp_path / "out")) == {
        "train/car_a/2_0001_car0.jpg",
        "train/car_a/2_0001_car3.jpg",
        "train/car_b/1_0007_car0.jpg",
        "train/car_b/1_0007_car3.jpg",
        "train/car_b/1_0008_car1.jpg",
    }
    read_image(tmp_path / "out/train/car_a/2_0001_car0.jpg")


def test_a_killed_run_goes_on_and_ends_the_same(
    tmp_path: Path, make_frame: Callable[..., None], read_tree: Callable[[Path], dict[str, bytes]]
):
    raw = tmp_path / "raw"
    for index in range(60):
        make_frame(raw, f"train/car_a/1_{index:04}", {0: (20, 30, 120, 80 + index % 5), 3: (160, 60, 140, 100)})
    code = (
        "import sys; from pathlib import Path; from carkp_carfusion.data.crop import crop_dataset\n"
        "crop_dataset(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    journal = tmp_path / "out/.carkp/crop_train.jsonl"
    run = subprocess.Popen([sys.executable, "-c", code, raw, tmp_path / "out"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while run.poll() is None and time.monotonic() < deadline:
        if journal.is_file() and journal.read_text().count("\n") > 1:
            os.kill(run.pid, signal.SIGKILL)
            break
    run.wait()
    report = crop_dataset(raw, tmp_path / "out")
    assert report.splits["train"].reused >= 8, "the first round was kept"
    crop_dataset(raw, tmp_path / "whole")
    resumed, whole = (without_journals(read_tree(tmp_path / name)) for name in ("out", "whole"))
    assert {name: data for name, data in resumed.items() if not name.endswith(".tmp")} == whole


def test_no_split_is_an_error(tmp_path: Path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match="no split found"):
        crop_dataset(tmp_path / "raw", tmp_path / "out")


def test_crops_of_frames_that_are_gone_are_removed(raw_data: Path, tmp_path: Path):
    crop_dataset(raw_data, tmp_path / "out")
    other = tmp_path / "out/train/car_a/mine.jpg"
    other.write_bytes(b"not carkp's")
    (raw_data / "train/car_a/images_jpg/1_0001.jpg").unlink()
    crop_dataset(raw_data, tmp_path / "out")
    crops = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out/train").rglob("*.jpg")}
    assert crops == {*annotations(tmp_path / "out"), "train/car_a/mine.jpg"}
    assert not any("car_a/1_0001" in path for path in crops)
