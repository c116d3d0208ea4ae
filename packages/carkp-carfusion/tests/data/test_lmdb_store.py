from __future__ import annotations

import os
import pickle
import shutil
import threading
from pathlib import Path

import lmdb
import pytest

from carkp_carfusion.data import lmdb_store
from carkp_carfusion.data.lmdb_store import PackStore
from carkp_carfusion.data.records import HEADER_KEY, PackHeader
from carkp_carfusion.skeleton import CARFUSION
from carkp_core.errors import DataError

# An error in a fork hook is only ever printed.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _nothing_open():
    lmdb_store.close_all()
    yield
    lmdb_store.close_all()


def open_paths() -> set[str]:
    return {path for path, _ in lmdb_store._environments}


def in_fork(check: object) -> int:
    """Run ``check()`` in a forked child; 0 if it returned True."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if check() else 1)  # type: ignore[operator]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_header_leaves_nothing_open(packed_data: Path):
    PackStore(packed_data / "train_lmdb").header()
    assert not open_paths()


def test_one_environment_serves_every_way_to_a_path(packed_data: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(packed_data)
    stores = [PackStore(packed_data / "train_lmdb"), PackStore(tmp_path / "link" / "train_lmdb")]
    assert stores[0].sample(3).image == stores[1].sample(3).image
    assert len(lmdb_store._environments) == 1


def test_environments_are_closed_before_a_fork_and_opened_again(packed_data: Path):
    store = PackStore(packed_data / "train_lmdb")
    expected = store.sample(3).image
    before = open_paths()

    def child() -> bool:
        return not open_paths() and store.sample(3).image == expected

    assert before
    assert in_fork(child) == 0
    assert not open_paths(), "the parent's was closed as well"
    assert store.sample(3).image == expected


def test_a_child_may_fork_again(packed_data: Path):
    store = PackStore(packed_data / "train_lmdb")
    store.sample(0)
    assert in_fork(lambda: store.sample(1) is not None and in_fork(lambda: bool(store.sample(2).name)) == 0) == 0


def test_a_fork_waits_for_readers_in_other_threads(packed_data: Path):
    store = PackStore(packed_data / "train_lmdb")
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                store.sample(5)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        assert [in_fork(lambda: bool(store.sample(2).name)) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not failures


def test_a_store_is_a_path_when_pickled(packed_data: Path):
    store = PackStore(packed_data / "train_lmdb")
    store.sample(0)
    assert pickle.loads(pickle.dumps(store)).sample(1).image == store.sample(1).image
    assert len(pickle.dumps(store)) < 1000


def test_a_missing_data_set_names_the_command(tmp_path: Path):
    with pytest.raises(DataError, match="no packed data set") as caught:
        PackStore(tmp_path / "train_lmdb").header()
    assert "carkp carfusion-packer" in str(caught.value)
    assert "--split-name train" in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path):
    (tmp_path / "data.mdb").write_bytes(b"junk" * 5000)
    with pytest.raises(DataError, match="cannot be read"):
        PackStore(tmp_path).header()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_cut_file_is_refused(packed_data: Path, tmp_path: Path, share: float):
    shutil.copytree(packed_data / "train_lmdb", tmp_path / "x_lmdb")
    path = tmp_path / "x_lmdb/data.mdb"
    with path.open("r+b") as file:
        file.truncate(int(share * path.stat().st_size))
    with pytest.raises(DataError, match=r"cut short|cannot be read"):
        PackStore(tmp_path / "x_lmdb").header()


def test_foreign_and_incomplete_data_sets_are_refused(tmp_path: Path):
    for name, items, message in (
        ("foreign", {b"a": b"b"}, "not made by carkp"),
        ("short", {HEADER_KEY: PackHeader(5, "train", CARFUSION).to_bytes()}, "incomplete"),
    ):
        environment = lmdb.open(str(tmp_path / name), lock=False)
        with environment.begin(write=True) as transaction:
            for key, value in items.items():
                transaction.put(key, value)
        environment.close()
        with pytest.raises(DataError, match=message):
            PackStore(tmp_path / name).header()
