"""A training sample (read, decode, all transforms) against decoding its JPEG alone, in one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.stopwatch import best_seconds
from carkp_carfusion.data.crop import crop_dataset
from carkp_carfusion.data.pack import pack_split
from carkp_carfusion.data.synth.generate import SynthSpec, generate
from carkp_core.session import open_session

CONFIG = "keypoint_efficientnetb0_carfusion"
FRAMES = 30


def run() -> Iterator[str]:
    """A line for training samples and one for validation samples."""
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root / "raw", SynthSpec(frames_train=FRAMES, frames_test=1, size=(1280, 720)), 2)
        crop_dataset(root / "raw", root / "cropped", 1)
        pack_split(root / "cropped", root / "packed", "train", 1)
        encoded = [np.fromfile(path, np.uint8) for path in sorted((root / "cropped" / "train").rglob("*.jpg"))]
        for title, loader in (("training", "data_loader"), ("validation", "val_data_loader")):
            yield _line(title, _dataset(loader, root / "packed" / "train_lmdb"), encoded)


def _dataset(loader: str, path: Path) -> object:
    session = open_session(CONFIG)
    node = session.config[loader]["dataset"]
    node["data_path"] = str(path)
    return session.recipe(node, f"{loader}.dataset").build()


def _line(title: str, dataset: object, encoded: list[np.ndarray]) -> str:
    def samples() -> None:
        for index in range(len(encoded)):
            dataset[index]  # type: ignore[index]

    def decoding() -> None:
        for data in encoded:
            cv2.imdecode(data, cv2.IMREAD_COLOR)

    assert len(dataset) == len(encoded)  # type: ignore[arg-type]
    seconds = best_seconds({"samples": samples, "decoding": decoding})
    each = {name: 1e3 * value / len(encoded) for name, value in seconds.items()}
    pixels = np.mean([cv2.imdecode(data, cv2.IMREAD_COLOR).size / 3 for data in encoded])
    return (
        f"{title} sample {each['samples']:.3f} ms, {each['samples'] / each['decoding']:.2f} times its JPEG's decoding "
        f"({each['decoding']:.3f} ms, {len(encoded)} crops of {pixels / 1e3:.0f} kilopixels on average)"
    )
