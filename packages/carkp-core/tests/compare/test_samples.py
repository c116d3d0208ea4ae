"""The images that are compared: validation samples, files, folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from compare_toys import opened

from carkp_core.compare.comparison import compare_session
from carkp_core.compare.samples import Samples, file_samples, validation_samples
from carkp_core.errors import ConfigError, DataError


def names(samples: Samples) -> list[str]:
    return [name for batch, _ in samples.batches(3) for name in batch]


def write_images(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for index in range(count):
        np.save(folder / f"{index}.npy", np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return folder


def test_the_first_validation_samples_in_batches(trained: Path) -> None:
    session = opened(trained)
    samples = validation_samples(session, "int_infer", ("img",), 7)
    shapes = [tuple(inputs[0].shape) for _, inputs in samples.batches(3)]
    assert shapes == [(3, 3, 8, 8), (3, 3, 8, 8), (1, 3, 8, 8)]
    assert names(samples) == [f"sample {index}" for index in range(7)]
    again = torch.cat([inputs[0] for _, inputs in samples.batches(7)])
    assert torch.equal(again, torch.cat([inputs[0] for _, inputs in samples.batches(2)]))
    assert validation_samples(session, "float", ("img",), 500).count == 10


def test_files_and_folders(trained: Path, tmp_path: Path) -> None:
    session, folder = opened(trained), write_images(tmp_path / "images")
    (folder / "bad.npy").write_bytes(b"no image")
    said: list[str] = []
    samples = file_samples(session, [folder / "2.npy", folder], ("img",), None, said.append)
    assert names(samples) == ["2.npy", "0.npy", "1.npy", "3.npy"]
    assert len(said) == 1
    assert "bad.npy: skipped, the image cannot be read" in said[0]
    assert names(file_samples(session, [folder], ("img",), 2, said.append)) == ["0.npy", "1.npy"]


def test_unreadable_and_missing_images(trained: Path, tmp_path: Path) -> None:
    session = opened(trained)
    bad = tmp_path / "bad.npy"
    bad.write_bytes(b"no image")
    for path in (bad, tmp_path / "missing.npy"):
        with pytest.raises(DataError, match="the image cannot be read"):
            compare_session(session, ("calibration", "int_infer"), [path])
    with pytest.raises(DataError, match="no image could be read"):
        compare_session(session, ("calibration", "int_infer"), [bad.parent])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no image to compare on"):
        compare_session(session, ("calibration", "int_infer"), [empty])


def test_samples_without_the_networks_input(trained: Path) -> None:
    samples = validation_samples(opened(trained), "float", ("left", "right"), 1)
    with pytest.raises(ConfigError, match="no tensor 'left'"):
        names(samples)
