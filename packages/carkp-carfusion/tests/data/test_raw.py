from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carkp_carfusion.data.raw import find_frames, find_splits, other_splits, parse_labels, read_labels
from carkp_core.errors import DataError


def test_a_label_file_is_read_by_car_and_kept_point():
    text = "10.5,20,1,0,1\n30,40,2,0,2\n50,60,10,0,3\n1,2,9,0,1\n3,4,14,0,1\n7,8,1,4,1\n"
    (first, second), tally = parse_labels(text, "gt/x.txt")
    assert not tally
    assert (first.car_id, second.car_id) == (0, 4)
    assert first.points_xy[0].tolist() == [10.5, 20]
    assert first.points_xy[8].tolist() == [50, 60], "id 10 is the ninth kept point"
    assert first.labelled.sum() == 3, "exhaust and centre are not kept"
    assert second.labelled.tolist() == [True] + [False] * 11


def test_floats_blank_lines_and_further_columns_are_fine():
    text = "\ufeff 10.5 , 20.0 , 1.0 , 2.0 , 1.0 , extra , 7\r\n\r\n   \r\n5,6,2,2,3"
    cars, tally = parse_labels(text.lstrip("\ufeff"), "gt/x.txt")
    assert not tally
    assert cars[0].car_id == 2
    assert cars[0].labelled.sum() == 2


@pytest.mark.parametrize(
    "line",
    [
        "1,2,3",
        "x,2,3,0,1",
        "nan,2,3,0,1",
        "1,inf,3,0,1",
        "1,2,0,0,1",
        "1,2,15,0,1",
        "1,2,3.5,0,1",
        "1,2,3,0.5,1",
        "1,2,3,nan,1",
        "1,2,3,0,0",
        "1,2,3,0,4",
        "1 2 3 0 1",
        "\ufffd\ufffd",
    ],
)
def test_a_malformed_line_is_counted_with_its_place_and_the_rest_used(line: str):
    cars, tally = parse_labels(f"1,2,1,0,1\n{line}\n3,4,2,0,1\n", "train/a/gt/x.txt")
    assert tally.counts() == {"malformed_line": 1}
    assert tally.reasons["malformed_line"].examples[0].startswith("train/a/gt/x.txt:2: ")
    assert cars[0].labelled.sum() == 2


def test_of_a_duplicate_point_the_first_counts():
    cars, tally = parse_labels("1,2,1,0,1\n9,9,1,0,1\n5,5,1,1,1\n", "x")
    assert tally.counts() == {"duplicate_point": 1}
    assert cars[0].points_xy[0].tolist() == [1, 2]


def test_valid_means_labelled_and_inside_the_frame():
    text = "0,0,1,0,1\n99.9,49.9,2,0,2\n100,10,3,0,3\n10,50,4,0,1\n-0.1,10,5,0,1\n"
    (car,), _ = parse_labels(text, "x")
    assert car.valid(100, 50)[:5].tolist() == [True, True, False, False, False]


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="0123456789.,-+ne \n\tx", max_size=200))
def test_no_text_makes_the_parser_stop(text: str):
    cars, tally = parse_labels(text, "x")
    lines = [line for line in text.splitlines() if line.strip()]
    kept = sum(1 for line in lines if len(line.split(",")) >= 5)
    assert sum(int(car.labelled.sum()) for car in cars) <= kept
    assert len(tally) <= len(lines)
    assert all(np.isfinite(car.points_xy).all() for car in cars)


def test_frames_come_in_a_fixed_order(raw_data: Path):
    frames, tally = find_frames(raw_data, "train")
    assert [frame.key for frame in frames] == ["train/car_a/1_0001", "train/car_a/2_0001", "train/car_b/1_0007"]
    assert not tally
    assert all(frame.boxes is None for frame in frames)


def test_whatever_is_missing_is_counted_and_named(raw_data: Path, make_frame: Callable[..., None]):
    for stem in ("5_1", "5_2"):
        make_frame(raw_data, f"train/car_d/{stem}", {0: (20, 30, 120, 80)})
    (raw_data / "train/car_d/gt/5_1.txt").unlink()
    (raw_data / "train/car_d/images_jpg/5_2.jpg").unlink()
    (raw_data / "train/car_e").mkdir()
    (raw_data / "train/car_f/images_jpg").mkdir(parents=True)
    (raw_data / "train/notes.txt").write_text("a file among the sequences")
    frames, tally = find_frames(raw_data, "train")
    assert len(frames) == 3
    assert tally.counts() == {"empty_folder": 2, "missing_labels": 1, "missing_image": 1}
    assert tally.reasons["missing_labels"].examples == ("train/car_d/gt/5_1.txt",)
    assert tally.reasons["missing_image"].examples == ("train/car_d/images_jpg/5_2.jpg",)
    assert tally.reasons["empty_folder"].examples == ("train/car_e", "train/car_f")


def test_label_files_without_points_are_counted(raw_data: Path):
    frame = find_frames(raw_data, "test")[0][0]
    for text, reasons in (("", {"empty_labels": 1}), ("junk\n", {"empty_labels": 1, "malformed_line": 1})):
        frame.labels.write_text(text)
        assert read_labels(frame)[1].counts() == reasons
    frame.labels.write_bytes(bytes(range(256)))
    assert read_labels(frame)[1].count("empty_labels") == 1


def test_label_files_may_start_with_a_byte_order_mark(raw_data: Path):
    frame = find_frames(raw_data, "test")[0][0]
    frame.labels.write_bytes(b"\xef\xbb\xbf1,2,1,0,1\n")
    cars, tally = read_labels(frame)
    assert not tally
    assert cars[0].labelled[0]


def test_splits(raw_data: Path, tmp_path: Path):
    assert find_splits(raw_data) == ("train", "test")
    with pytest.raises(DataError, match="does not exist"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no split found") as caught:
        find_splits(tmp_path)
    assert caught.value.remedy is not None
    assert str(raw_data) in caught.value.remedy, "the folder below is suggested"


def test_upper_case_endings_and_hidden_files(raw_data: Path):
    folder = raw_data / "test/car_c/images_jpg"
    (folder / "1_0002.jpg").rename(folder / "1_0002.JPG")
    (folder / "._1_0002.jpg").write_bytes(b"")
    frames, tally = find_frames(raw_data, "test")
    assert [frame.image.name for frame in frames] == ["1_0002.JPG"]
    assert not tally


def test_keys_are_unique(raw_data: Path):
    keys = list(itertools.chain.from_iterable((f.key for f in find_frames(raw_data, s)[0]) for s in ("train", "test")))
    assert len(set(keys)) == len(keys) == 4


def test_a_folder_under_another_name_that_holds_sequences_is_told(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split / "seq" / "images_jpg").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    tally = other_splits(tmp_path)
    assert tally.counts() == {"unknown_split": 1}
    assert tally.reasons["unknown_split"].examples == (str(tmp_path / "validation"),)


def test_files_of_another_kind_are_told_and_hidden_ones_are_not(tmp_path):
    for name in ("images_jpg/a.bmp", "images_jpg/.DS_Store", "gt/readme.md"):
        path = tmp_path / "train" / "seq" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    _, tally = find_frames(tmp_path, "train")
    assert tally.reasons["other_file"].examples == ("train/seq/images_jpg/a.bmp", "train/seq/gt/readme.md")
