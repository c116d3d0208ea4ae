"""Images in, pictures and JSON files out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from npu_toys import toy_graph, toy_plugins, write_config

from carkp_core.errors import CarkpError, CheckpointError, ConfigError, DataError
from carkp_core.inference import InferenceResult, infer_images, parse_model_input
from carkp_core.session import open_session


def write_spot(path: Path, x: int, y: int) -> Path:
    image = np.full((8, 8, 3), 30, np.uint8)
    image[y, x] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, image)
    return path


def infer(tmp_path: Path, *paths: Path, extra: str = "") -> InferenceResult:
    config = write_config(tmp_path, toy_graph(), extra)
    return infer_images(open_session(str(config), plugins=toy_plugins()), paths, tmp_path / "saved")


def test_a_picture_and_a_json_file_for_each_image(tmp_path: Path) -> None:
    first, second = write_spot(tmp_path / "a.npy", 3, 5), write_spot(tmp_path / "b.npy", 6, 0)
    result = infer(tmp_path, first, second)
    assert [image.answer for image in result.images] == [{"x": 3.0, "y": 5.0}, {"x": 6.0, "y": 0.0}]
    for image in result.images:
        record = json.loads(image.json.read_text())
        assert record == {"image": str(image.image), "stage": "int_infer", **image.answer}
        assert image.picture.parent == image.json.parent == tmp_path / "saved"
    assert np.load(result.images[0].picture)[5, 3].tolist() == [255, 0, 0]


def test_a_folder_is_taken_image_by_image(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for index in range(20):  # more than one batch
        write_spot(folder / f"{index:02}.npy", index % 8, 1)
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.npy").write_text("no image either")
    result = infer(tmp_path, folder)
    assert [image.answer["x"] for image in result.images] == [index % 8 for index in range(20)]
    assert [path.name for path, _ in result.skipped] == ["broken.npy"]


def test_equal_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    result = infer(tmp_path, write_spot(tmp_path / "a/x.npy", 1, 1), write_spot(tmp_path / "b/x.npy", 2, 2))
    assert [image.picture.name for image in result.images] == ["x_keypoints.png", "x_keypoints_2.png"]


@pytest.mark.parametrize("name", ["missing.npy", "broken.npy"])
def test_a_named_image_must_be_readable(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.npy").write_text("no image")
    with pytest.raises(DataError, match="cannot be read"):
        infer(tmp_path, tmp_path / name)
    assert not (tmp_path / "saved").exists()


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image to run"):
        infer(tmp_path, tmp_path / "empty")


def test_a_stage_that_was_not_trained_is_an_error(tmp_path: Path) -> None:
    session = open_session(str(write_config(tmp_path)), plugins=toy_plugins())
    with pytest.raises(CheckpointError, match="no integer model yet"):
        infer_images(session, [write_spot(tmp_path / "a.npy", 1, 1)], tmp_path / "saved")


def test_infer_cfg_must_be_able_to_infer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot infer"):
        infer(tmp_path, write_spot(tmp_path / "a.npy", 1, 1), extra="infer_cfg = dict(type=toys.Brighten)\n")


def test_without_infer_cfg_the_config_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CarkpError, match="infer_cfg"):
        infer(tmp_path, write_spot(tmp_path / "a.npy", 1, 1), extra="infer_cfg = None\n")


def test_model_inputs_name_the_image(tmp_path: Path) -> None:
    assert parse_model_input("img:a/b.jpg") == Path("a/b.jpg")
    assert parse_model_input("a/b.jpg") == Path("a/b.jpg")
    with pytest.raises(ConfigError, match="no such model input"):
        parse_model_input("depth:a.png")
