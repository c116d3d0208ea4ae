from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from carkp_carfusion.data.gallery import open_galleries
from carkp_core.errors import DataError


def test_raw_data_shows_cars_with_their_crops(raw_data: Path):
    train, test = open_galleries(raw_data)
    assert (train.kind, train.split, train.count) == ("raw", "train", 3)
    picture = test.picture(0)
    assert picture is not None
    assert picture.caption == "car_c/1_0002: 2 cars"
    assert [shown.label for shown in picture.objects] == ["0", "3"]
    for shown in picture.objects:
        assert shown.window is not None
        left, top, right, bottom = shown.window
        x, y = shown.points_xy[shown.valid].T
        assert ((x >= left) & (x < right) & (y >= top) & (y < bottom)).all()


def test_cropped_and_packed_data_show_the_same(cropped_data: Path, packed_data: Path):
    (cropped,) = open_galleries(cropped_data, "train")
    (packed,) = open_galleries(packed_data, "train")
    assert (cropped.kind, packed.kind) == ("cropped", "packed")
    assert cropped.count == packed.count == 12
    one, two = cropped.picture(3), packed.picture(3)
    assert one is not None
    assert two is not None
    assert (one.image == two.image).all()
    assert (one.objects[0].points_xy == two.objects[0].points_xy).all()


def test_one_packed_folder_is_enough(packed_data: Path):
    (gallery,) = open_galleries(packed_data / "test_lmdb")
    assert (gallery.split, gallery.count) == ("test", 2)


def test_an_unreadable_picture_is_none(raw_data: Path, cropped_data: Path, tmp_path: Path):
    (raw_data / "test/car_c/images_jpg/1_0002.jpg").write_bytes(b"")
    assert open_galleries(raw_data, "test")[0].picture(0) is None
    copy = Path(shutil.copytree(cropped_data, tmp_path / "crops"))
    (copy / "test/car_c/1_0002_car0.jpg").unlink()
    assert open_galleries(copy, "test")[0].picture(0) is None


def test_what_is_no_data_set_is_refused(tmp_path: Path, raw_data: Path):
    with pytest.raises(DataError, match="no data set found"):
        open_galleries(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data set found") as caught:
        open_galleries(tmp_path / "empty")
    assert "cropped" in str(caught.value)
    with pytest.raises(DataError, match="no split 'val'") as caught:
        open_galleries(raw_data, "val")
    assert caught.value.allowed == "one of: train, test"
