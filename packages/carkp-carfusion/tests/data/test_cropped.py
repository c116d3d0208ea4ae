from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from carkp_carfusion.data.cropped import cropped_splits, parse_rows, read_annotations, read_skeleton
from carkp_carfusion.skeleton import CARFUSION, plain_skeleton
from carkp_core.errors import DataError


def write(folder: Path, name: str, value: object) -> None:
    (folder / "simple_anno").mkdir(exist_ok=True)
    (folder / "simple_anno" / name).write_text(json.dumps(value))


def test_annotations_are_read_in_the_order_of_their_names(cropped_data: Path):
    found, tally = read_annotations(cropped_data, "train", 12)
    assert not tally
    assert [item.path for item in found] == sorted(item.path for item in found)
    assert found[0].rows.dtype == np.float32
    assert cropped_splits(cropped_data) == ("test", "train")


def test_a_wrong_split_lists_the_splits(cropped_data: Path):
    with pytest.raises(DataError, match="no split 'val'") as caught:
        read_annotations(cropped_data, "val", 12)
    assert caught.value.allowed == "one of: test, train"


def test_a_folder_without_crops_names_the_command(tmp_path: Path):
    with pytest.raises(DataError, match="no split 'train'") as caught:
        read_annotations(tmp_path, "train", 12)
    assert "gen-carfusion-data" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"x"'])
def test_a_file_that_is_no_object_is_an_error(tmp_path: Path, text: str):
    write(tmp_path, "keypoints_train.json", {})
    (tmp_path / "simple_anno/keypoints_train.json").write_text(text)
    with pytest.raises(DataError, match=r"keypoints_train\.json: (the file cannot be read as JSON|not an annotation)"):
        read_annotations(tmp_path, "train", 2)


def test_malformed_entries_are_counted(tmp_path: Path):
    good = [[1, 2, 1], [3.5, 4, 0]]
    bad = {"a": good, "b": good[:1], "../c": good, "/d": good, "e": [[1, 2, 0.5], [0, 0, 0]], "f": 7}
    write(tmp_path, "keypoints_train.json", bad)
    found, tally = read_annotations(tmp_path, "train", 2)
    assert [item.path for item in found] == ["a"]
    assert tally.counts() == {"malformed_annotation": 5}


@pytest.mark.parametrize("rows", [None, [], [[1, 2]], [[1, 2, 3]], [["1", 2, 1]], [[float("nan"), 2, 1]], [[1, 2, -1]]])
def test_rows_that_are_not_x_y_valid(rows: object):
    assert parse_rows(rows, 1) is None


def test_crops_may_bring_their_own_skeleton(tmp_path: Path):
    assert read_skeleton(tmp_path) == CARFUSION
    write(tmp_path, "skeleton.json", plain_skeleton(4).to_json())
    assert read_skeleton(tmp_path) == plain_skeleton(4)
    write(tmp_path, "skeleton.json", {"name": 1})
    with pytest.raises(DataError, match=r"skeleton\.json: not a skeleton"):
        read_skeleton(tmp_path)
