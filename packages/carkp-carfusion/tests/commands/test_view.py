from __future__ import annotations

import json
from pathlib import Path

import pytest

from carkp_carfusion.commands.view import save_sheet, training_gallery
from carkp_carfusion.data.gallery import open_galleries
from carkp_carfusion.data.images import read_image
from carkp_core.cli import run

CONFIG = """
import torch

data_root = "missing"
data_loader = dict(
    type=torch.utils.data.DataLoader,
    dataset=dict(
        type="CarfusionPackData",
        data_path=f"{data_root}/train_lmdb",
        transforms=[
            dict(type="RandomFlip", px=0.5),
            dict(type="Resize", img_scale=(64, 64), keep_ratio=True),
            dict(type="RandomPadLdmkData", size=(64, 64)),
            dict(type="ToTensor", to_yuv=True),
            dict(type="Normalize", mean=128.0, std=128.0),
        ],
    ),
    batch_size=4,
    collate_fn="collate_2d",
)
"""


def test_a_sheet_for_each_split(raw_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "deep" / "sheet.png"
    assert run(["view", str(raw_data), "--out", str(out), "--json", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["kind"] == "raw"
    assert {name: sheet["shown"] for name, sheet in report["sheets"].items()} == {"train": 3, "test": 1}
    for sheet in report["sheets"].values():
        assert read_image(Path(sheet["file"])).std() > 5
    assert "sheet_train.png" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["cropped_data", "packed_data"])
def test_one_split_of_crops(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    path = request.getfixturevalue(kind)
    out = tmp_path / "sheet.png"
    assert run(["view", str(path), "--split", "train", "--count", "5", "--columns", "2", "--out", str(out)]) == 0
    assert read_image(out).shape[1] == 2 * (300 + 8) + 8


def test_unreadable_pictures_are_passed_over(raw_data: Path, tmp_path: Path):
    (raw_data / "train/car_a/images_jpg/1_0001.jpg").write_bytes(b"")
    (gallery,) = open_galleries(raw_data, "train")
    assert save_sheet(gallery, tmp_path / "a.png", count=2) in ((2, 0), (2, 1))
    assert save_sheet(gallery, tmp_path / "b.png", count=3) == (2, 1)


def test_a_seed_chooses_the_pictures(cropped_data: Path, tmp_path: Path):
    (gallery,) = open_galleries(cropped_data, "train")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_sheet(gallery, tmp_path / f"{name}.png", count=4, seed=seed)
    one, same, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert one == same
    assert one != other


def test_augmented_samples_of_a_config(packed_data: Path, tmp_path: Path):
    config = tmp_path / "mine.py"
    config.write_text(CONFIG)
    out = tmp_path / "sheet.png"
    command = ["view", "--config", str(config), "--opts", f"data_root={packed_data}", "--out", str(out)]
    assert run([*command, "--count", "6", "--columns", "3"]) == 0
    assert read_image(out).shape[1] == 3 * 248 + 8
    gallery = training_gallery(str(config), (f"data_root={packed_data}",))
    picture = gallery.picture(12)
    assert picture is not None
    assert picture.image.shape == (64, 64, 3)
    assert picture.caption.startswith("epoch 1, 0: ")


def test_misuse_is_explained(tmp_path: Path, raw_data: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["view"]) == 2
    assert "either PATH or --config" in capsys.readouterr().err
    assert run(["view", str(tmp_path / "nothing")]) == 2
    assert "no data set found" in capsys.readouterr().err
    for image in raw_data.rglob("*.jpg"):
        image.write_bytes(b"")
    assert run(["view", str(raw_data), "--out", str(tmp_path / "x.png")]) == 2
    assert "nothing to show" in capsys.readouterr().err
