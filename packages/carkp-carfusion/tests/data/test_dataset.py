from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
import torch
from attrs import frozen
from torch.utils.data import DataLoader

from carkp_carfusion.data import geometry
from carkp_carfusion.data import transforms as T
from carkp_carfusion.data.collate import collate_2d
from carkp_carfusion.data.dataset import CarfusionPackData, KeypointDataset
from carkp_carfusion.data.records import HEADER_KEY, PackedSample, PackHeader, encode_sample, sample_key
from carkp_carfusion.skeleton import CARFUSION, Skeleton
from carkp_core.errors import DataError

TRANSFORMS = (
    T.RandomFlip(0.5),
    T.Resize((64, 64)),
    T.RandomPadLdmkData((64, 64)),
    T.AddGaussianNoise(0.5, 0, 2),
    T.GenerateHeatmapTarget(12, 4, (16, 16)),
    T.ToTensor(to_yuv=True),
    T.Normalize(128.0, 128.0),
)


@frozen
class NameProcess:
    """A transform that notes the OpenCV threads of the process it runs in."""

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return {**sample, "threads": torch.tensor([cv2.getNumThreads()])}


def loader(dataset: KeypointDataset, method: str | None, **options: Any) -> DataLoader[Any]:
    workers = {"num_workers": 2, "multiprocessing_context": method, "persistent_workers": True} if method else {}
    return DataLoader(dataset, batch_size=5, collate_fn=collate_2d, **workers, **options)


def images(batches: Any) -> torch.Tensor:
    return torch.cat([batch["img"] for batch in batches])


@pytest.fixture
def train(packed_data: Path) -> CarfusionPackData:
    return CarfusionPackData(packed_data / "train_lmdb", TRANSFORMS, seed=7)


def test_a_raw_sample_is_what_was_cropped(packed_data: Path):
    dataset = CarfusionPackData(packed_data / "train_lmdb")
    assert len(dataset) == 12
    assert dataset.skeleton == CARFUSION
    sample = dataset[0]
    assert sample["img_name"] == "train/car_a/1_0000_car0.jpg"
    assert sample["img"].dtype == np.uint8
    assert sample["img"].shape == (sample["img_height"], sample["img_width"], 3)
    assert sample["gt_ldmk"].shape == (12, 2)
    assert sample["gt_ldmk"].dtype == sample["gt_ldmk_attr"].dtype == np.float32
    assert sample["index"] == 0
    assert "flip_index" not in sample
    for x, y in sample["gt_ldmk"]:
        assert sample["img"][int(y), int(x)].min() > 150, "the dot drawn for this point"


def test_a_batch_has_the_promised_shapes(train: CarfusionPackData):
    batch = next(iter(loader(train, None)))
    assert batch["img"].shape == (5, 3, 64, 64)
    assert batch["gt_ldmk"].shape == (5, 12, 2)
    assert batch["gt_ldmk_attr"].shape == (5, 12)
    assert batch["gt_heatmap"].shape == batch["gt_heatmap_weight"].shape == (5, 12, 16, 16)
    assert batch["transform_xy"].shape == (5, 2, 3)
    assert batch["index"] == [0, 1, 2, 3, 4]
    assert len(batch["img_name"]) == 5


def test_indices_are_python_sequence_indices(train: CarfusionPackData):
    assert train[-1]["index"] == 11
    assert train[np.int64(3)]["index"] == 3
    for index in (12, -13):
        with pytest.raises(IndexError):
            train[index]


def test_randomness_is_seed_epoch_index_and_nothing_else(train: CarfusionPackData, packed_data: Path):
    first = [train[index]["img"] for index in range(12)]
    again = [train[index]["img"] for index in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    train.set_epoch(3)
    other_epoch = [train[index]["img"] for index in range(12)]
    assert not all(torch.equal(a, b) for a, b in zip(first, other_epoch, strict=True))
    assert torch.equal(train.replay(5, 0)["img"], first[5])
    other_seed = CarfusionPackData(packed_data / "train_lmdb", TRANSFORMS, seed=8)
    assert not all(torch.equal(a, other_seed[i]["img"]) for i, a in enumerate(first))


def test_the_runs_seed_is_taken_where_none_is_given(packed_data: Path):
    run: Any = SimpleNamespace(seed=41)
    assert CarfusionPackData(packed_data / "train_lmdb", context=run).seed == 41
    assert CarfusionPackData(packed_data / "train_lmdb", seed=3, context=run).seed == 3
    assert CarfusionPackData(packed_data / "train_lmdb").seed == 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_see_the_same_samples_in_every_epoch(train: CarfusionPackData, packed_data: Path, method: str):
    train[0]  # the parent has the environment open when the workers start
    second = CarfusionPackData(packed_data / "train_lmdb", TRANSFORMS, seed=8)
    batches, others = loader(train, method), loader(second, method)
    for epoch in range(2):
        for dataset in (train, second):
            dataset.set_epoch(epoch)
        for dataset, found in ((train, images(batches)), (second, images(others))):
            assert torch.equal(found, torch.stack([dataset[index]["img"] for index in range(12)]))
    del batches, others


def test_opencv_adds_threads_in_no_worker_and_keeps_them_in_the_parent(packed_data: Path):
    dataset = CarfusionPackData(packed_data / "train_lmdb", (T.Resize((32, 32), keep_ratio=False), NameProcess()))
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        assert dataset[0]["threads"].item() == 2
        assert {int(n) for batch in loader(dataset, "fork") for n in batch["threads"]} == {1}
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_pickles_and_copies_read_on(train: CarfusionPackData):
    train.set_epoch(2)
    expected = train[4]["img"]
    for twin in (pickle.loads(pickle.dumps(train)), copy.deepcopy(train)):
        assert twin.epoch == 2
        assert torch.equal(twin[4]["img"], expected)


class Ramps(KeypointDataset):
    """A data set of somebody else's: three points, five grey images."""

    def __init__(self, transforms: Any = None) -> None:
        super().__init__(Skeleton("abc", ("a", "b", "c"), flip_pairs=((0, 2),)), 5, transforms, seed=1)

    def raw(self, index: int) -> dict[str, Any]:
        return {
            "img": np.full((20, 30, 3), 10 * index, np.uint8),
            "gt_ldmk": np.array([[1, 2], [15, 10], [28, 2]], np.float32),
            "gt_ldmk_attr": np.ones(3, np.float32),
            "transform_xy": geometry.identity(),
            "img_name": str(index),
            "img_height": 20,
            "img_width": 30,
            "index": index,
        }


def test_another_data_set_only_says_what_its_samples_are():
    dataset = Ramps((T.RandomFlip(1.0), T.Resize((40, 60)), T.GenerateHeatmapTarget(3, 4, (10, 15)), T.ToTensor()))
    batch = next(iter(loader(dataset, "fork")))
    assert batch["img"].shape == (5, 3, 40, 60)
    # The mirror image of point c, 28 -> 1, enlarged by 2.
    assert batch["gt_ldmk"][0, 0].tolist() == [2.5, 4.5]
    assert batch["gt_heatmap"].shape == (5, 3, 10, 15)


def test_a_missing_data_set_is_named_with_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(DataError, match="no packed data set") as caught:
        CarfusionPackData(tmp_path / "test_lmdb")
    assert "carkp carfusion-packer" in str(caught.value)


def test_an_image_that_does_not_decode_is_named(tmp_path: Path):
    environment = lmdb.open(str(tmp_path), lock=False)
    with environment.begin(write=True) as transaction:
        sample = PackedSample("broken.jpg", np.zeros((12, 3), np.float32), b"no image")
        transaction.put(sample_key(0), encode_sample(sample))
        transaction.put(HEADER_KEY, PackHeader(1, "train", CARFUSION).to_bytes())
    environment.close()
    with pytest.raises(DataError, match="does not decode") as caught:
        CarfusionPackData(tmp_path)[0]
    assert caught.value.seen == "broken.jpg"
