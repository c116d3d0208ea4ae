"""Tiny data sets, drawn here: dark frames on which every labelled point of every car is a white dot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from carkp_carfusion.data.crop import crop_dataset
from carkp_carfusion.data.pack import pack_split

FRAME_HW = (200, 320)

#: Places of the 14 raw points of a car, as shares of its box.
SHARES = np.random.default_rng(5).uniform(0.05, 0.95, (14, 2))


def draw_frame(cars: dict[int, tuple[float, float, float, float]]) -> tuple[np.ndarray, str]:
    """A frame and its label text; ``cars`` maps a car id to its (x, y, width, height)."""
    image = np.full((*FRAME_HW, 3), 30, np.uint8)
    lines = []
    for car_id, (x, y, width, height) in cars.items():
        for raw_id, (share_x, share_y) in enumerate(SHARES, start=1):
            px, py = round(x + share_x * width), round(y + share_y * height)
            cv2.circle(image, (px, py), 1, (255, 255, 255), cv2.FILLED)
            lines.append(f"{px:.2f},{py:.2f},{raw_id},{car_id},{1 + raw_id % 3}")
    return image, "\n".join(lines) + "\n"


def add_frame(root: Path, name: str, cars: dict[int, tuple[float, float, float, float]]) -> None:
    """Write a frame of the raw layout; ``name`` is ``split/sequence/stem``."""
    split, sequence, stem = name.split("/")
    image, labels = draw_frame(cars)
    for folder in ("images_jpg", "gt"):
        (root / split / sequence / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / split / sequence / "images_jpg" / f"{stem}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    (root / split / sequence / "gt" / f"{stem}.txt").write_text(labels)


@pytest.fixture
def make_frame() -> Callable[[Path, str, dict[int, tuple[float, float, float, float]]], None]:
    return add_frame


@pytest.fixture
def raw_data(tmp_path: Path) -> Path:
    """Three train frames in two sequences and one test frame, two cars each: 6 and 2 crops."""
    root = tmp_path / "raw"
    for name in ("train/car_a/1_0001", "train/car_a/2_0001", "train/car_b/1_0007", "test/car_c/1_0002"):
        add_frame(root, name, {0: (20, 30, 120, 80), 3: (160, 60, 140, 100)})
    return root


@pytest.fixture(scope="session")
def cropped_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of six train frames and one test frame; not to be written to."""
    folder = tmp_path_factory.mktemp("cropped")
    for index in range(6):
        add_frame(folder / "raw", f"train/car_a/1_{index:04}", {0: (20, 30, 120 + index, 80), 3: (160, 60, 140, 100)})
    add_frame(folder / "raw", "test/car_c/1_0002", {0: (20, 30, 120, 80), 3: (160, 60, 140, 100)})
    crop_dataset(folder / "raw", folder / "cropped")
    return folder / "cropped"


@pytest.fixture(scope="session")
def packed_data(cropped_data: Path) -> Path:
    """The same, packed: 12 train and 2 test samples; not to be written to."""
    target = cropped_data.parent / "packed"
    for split in ("train", "test"):
        pack_split(cropped_data, target, split)
    return target


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def read_tree() -> Callable[[Path], dict[str, bytes]]:
    """Relative path -> contents of every file in a folder."""
    return tree_bytes
