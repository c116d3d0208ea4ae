from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from carkp_carfusion.data.cropped import read_annotations
from carkp_carfusion.data.lmdb_store import PackStore
from carkp_carfusion.data.pack import pack_split
from carkp_carfusion.skeleton import CARFUSION, plain_skeleton
from carkp_core.errors import DataError


@pytest.fixture
def crops(cropped_data: Path, tmp_path: Path) -> Path:
    """A copy of the crops that may be damaged."""
    return Path(shutil.copytree(cropped_data, tmp_path / "cropped"))


def test_the_files_own_bytes_and_rows_are_packed_in_order(cropped_data: Path, tmp_path: Path):
    report = pack_split(cropped_data, tmp_path, "train")
    assert (report.written, report.path) == (12, tmp_path / "train_lmdb")
    store = PackStore(report.path)
    header = store.header()
    assert (header.count, header.split, header.skeleton) == (12, "train", CARFUSION)
    for index, annotation in enumerate(read_annotations(cropped_data, "train", 12)[0]):
        sample = store.sample(index)
        assert sample.name == annotation.path
        assert sample.image == (cropped_data / annotation.path).read_bytes()
        assert (sample.rows == annotation.rows).all()


def test_only_the_data_set_is_left(cropped_data: Path, tmp_path: Path):
    pack_split(cropped_data, tmp_path, "test")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "test_lmdb",
        "test_lmdb/data.mdb",
    ]


def test_processes_and_a_growing_map_give_the_same_records(cropped_data: Path, tmp_path: Path):
    pack_split(cropped_data, tmp_path / "a", "train")
    pack_split(cropped_data, tmp_path / "b", "train", num_workers=2, initial_map_bytes=1 << 16)
    one, two = PackStore(tmp_path / "a/train_lmdb"), PackStore(tmp_path / "b/train_lmdb")
    assert one.header() == two.header()
    assert [one.sample(i).image for i in range(12)] == [two.sample(i).image for i in range(12)]
    assert (tmp_path / "a/train_lmdb/data.mdb").stat().st_size > 1 << 16, "the map had to grow"


def test_missing_and_unreadable_crops_are_counted(crops: Path, tmp_path: Path):
    names = [annotation.path for annotation in read_annotations(crops, "train", 12)[0]]
    (crops / names[0]).unlink()
    (crops / names[4]).write_bytes((crops / names[4]).read_bytes()[:300])
    report = pack_split(crops, tmp_path / "packed", "train")
    assert report.written == 10
    assert report.skipped.counts() == {"missing_image": 1, "unreadable_image": 1}
    assert report.skipped.reasons["unreadable_image"].examples == (names[4],)
    assert PackStore(report.path).sample(0).name == names[1]


def test_packing_again_replaces_the_old_data_set(crops: Path, tmp_path: Path):
    first = pack_split(crops, tmp_path / "packed", "train")
    store = PackStore(first.path)
    store.sample(11)
    path = crops / "simple_anno/keypoints_train.json"
    path.write_text(json.dumps(dict(list(json.loads(path.read_text()).items())[:2])))
    pack_split(crops, tmp_path / "packed", "train")
    assert store.header().count == 2
    store.sample(1)
    with pytest.raises(DataError, match="no such sample"):
        store.sample(11)


def test_what_an_interrupted_run_left_is_in_nobodys_way(cropped_data: Path, tmp_path: Path):
    left = tmp_path / ".train_lmdb.tmp"
    left.mkdir()
    (left / "data.mdb").write_bytes(b"half a database")
    assert pack_split(cropped_data, tmp_path, "train").written == 12
    assert not left.exists()


def test_with_nothing_usable_an_earlier_data_set_stays(
    crops: Path, tmp_path: Path, read_tree: Callable[[Path], dict[str, bytes]]
):
    pack_split(crops, tmp_path / "packed", "train")
    before = read_tree(tmp_path / "packed")
    shutil.rmtree(crops / "train")
    report = pack_split(crops, tmp_path / "packed", "train")
    assert report.written == 0
    assert report.skipped.counts() == {"missing_image": 12}
    assert read_tree(tmp_path / "packed") == before


def test_another_skeleton_travels_with_its_crops(crops: Path, tmp_path: Path):
    (crops / "simple_anno/skeleton.json").write_text(json.dumps(plain_skeleton(3).to_json()))
    path = crops / "simple_anno/keypoints_test.json"
    path.write_text(json.dumps({name: rows[:3] for name, rows in json.loads(path.read_text()).items()}))
    report = pack_split(crops, tmp_path / "packed", "test")
    assert PackStore(report.path).header().skeleton == plain_skeleton(3)
    assert PackStore(report.path).sample(0).rows.shape == (3, 3)


def test_a_wrong_split_is_an_error(cropped_data: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no split 'val'"):
        pack_split(cropped_data, tmp_path, "val")
    assert not list(tmp_path.iterdir())
