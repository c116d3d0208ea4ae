"""``carkp view``: contact sheets of a data set, as it is stored or as the network gets it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from attrs import evolve
from rich.console import Console

from carkp_carfusion.data.gallery import Gallery, LabelledObject, Picture, open_galleries
from carkp_carfusion.data.images import Image, write_image
from carkp_carfusion.skeleton import Skeleton
from carkp_carfusion.visualize import DrawStyle, contact_sheet, draw_box, draw_keypoints, keypoints_tile
from carkp_core.cli_options import PicturePath, json_option, opts_option, write_json
from carkp_core.errors import DataError

#: Height and width of a cell: a whole frame needs more room than a crop, a network input is square.
TILES_HW = {"raw": (360, 640), "cropped": (180, 300), "packed": (180, 300), "augmented": (240, 240)}

#: From how many epochs augmented samples are picked.
EPOCHS_SHOWN = 4


@click.command("view")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=PicturePath(), help="The sheet, a PNG or JPEG. [view.png]")
@click.option("--split", help="One split; left out, a sheet for each.")
@click.option("--count", type=click.IntRange(min=1), help="Pictures to a sheet. [24; raw: 6]")
@click.option("--columns", type=click.IntRange(min=1), help="Pictures to a row.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which pictures are drawn at random.")
@click.option("--config", help="Show the samples of this config's data_loader after its transforms instead of PATH.")
@opts_option
@json_option
def view(
    path: Path | None,
    out: Path | None,
    split: str | None,
    count: int | None,
    columns: int | None,
    seed: int,
    config: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """Draw sheets of samples with their keypoints and skeletons.

    PATH is raw, cropped or packed data; which one is found out. With --config the pictures are augmented as in
    training: every transform up to ToTensor, one epoch to a picture.
    """
    if (path is None) == (config is None):
        raise click.UsageError("give either PATH or --config")
    if config is not None:
        galleries: tuple[Gallery, ...] = (training_gallery(config, opts, split),)
    else:
        assert path is not None
        galleries = open_galleries(path, split)
    out = out or Path("view.png")
    sheets: dict[str, Any] = {}
    for gallery in galleries:
        target = out if len(galleries) == 1 else out.with_name(f"{out.stem}_{gallery.split}{out.suffix}")
        shown, unreadable = save_sheet(gallery, target, count, columns, seed)
        Console().print(
            f"{gallery.kind} {gallery.split}: {shown} of {gallery.count} -> {target}", highlight=False, soft_wrap=True
        )
        sheets[gallery.split] = {"file": str(target), "shown": shown, "of": gallery.count, "unreadable": unreadable}
    write_json(json_path, {"kind": galleries[0].kind, "sheets": sheets})
    if not any(sheet["shown"] for sheet in sheets.values()):
        raise DataError("there is nothing to show", where=str(path or config), seen="no readable image in any split")


def save_sheet(
    gallery: Gallery, out: Path, count: int | None = None, columns: int | None = None, seed: int = 0
) -> tuple[int, int]:
    """Draw ``count`` pictures chosen by ``seed`` and save them; return how many were drawn, and were unreadable."""
    wanted = count or (6 if gallery.kind == "raw" else 24)
    tile_hw = TILES_HW[gallery.kind]
    tiles: list[tuple[Image, str]] = []
    unreadable = 0
    for index in _order(gallery.count, wanted, seed):
        picture = gallery.picture(index)
        if picture is None:
            unreadable += 1
            continue
        tiles.append((draw_picture(picture, gallery.skeleton, tile_hw), picture.caption))
        if len(tiles) == wanted:
            break
    if tiles:
        title = f"{gallery.kind} {gallery.split}: {len(tiles)} of {gallery.count}"
        write_image(out, contact_sheet(tiles, columns, tile_hw, title, gallery.skeleton))
    return len(tiles), unreadable


def _order(count: int, wanted: int, seed: int) -> Iterator[int]:
    """Which entries to show: the seed's choice in the data's order, then the others in case some are unreadable."""
    order = np.random.default_rng(seed).permutation(count)
    yield from sorted(order[:wanted].tolist())
    yield from order[wanted:].tolist()


def draw_picture(picture: Picture, skeleton: Skeleton, tile_hw: tuple[int, int]) -> Image:
    """A picture with all that is known of it drawn: enlarged first when it shows one object."""
    if len(picture.objects) == 1 and picture.objects[0].window is None:
        (only,) = picture.objects
        return keypoints_tile(picture.image, only.points_xy, skeleton, only.valid, tile_hw)
    image = picture.image
    for shown in picture.objects:
        if shown.window is not None:
            image = draw_box(image, shown.window, label=shown.label)
        image = draw_keypoints(image, shown.points_xy, skeleton, shown.valid, _style(image, shown))
    return image


def _style(image: Image, shown: LabelledObject) -> DrawStyle:
    """Smaller points for a smaller object, so that far cars can be told apart."""
    whole = DrawStyle.for_image(image)
    if shown.window is None:
        return whole
    left, top, right, bottom = shown.window
    side = math.sqrt((right - left) * (bottom - top))
    return evolve(whole, radius_px=min(whole.radius_px, max(2.5, side / 30)), line_px=max(1, min(3, round(side / 60))))


def training_gallery(config: str, opts: tuple[str, ...] = (), loader: str | None = None) -> Gallery:
    """The samples of a config's ``data_loader`` (or the loader named) after its transforms up to ToTensor.

    Entry ``i`` is sample ``i`` modulo the data set's length, in the epoch that follows from how often it came before.
    """
    from carkp_carfusion.data.dataset import CarfusionPackData
    from carkp_carfusion.data.transforms import ToTensor
    from carkp_core.session import open_session

    name = {None: "data_loader", "train": "data_loader", "test": "val_data_loader"}.get(loader, str(loader))
    session = open_session(config, opts)
    recipe = session.recipe(session.config.get(name), name).child("dataset")
    dataset = recipe.build() if recipe is not None else None
    if not isinstance(dataset, CarfusionPackData):
        raise DataError(
            "the config's data set cannot be shown",
            where=f"{config}: {name}.dataset",
            seen=type(dataset).__name__,
            allowed="CarfusionPackData",
        )
    ends = [place for place, transform in enumerate(dataset.transforms) if isinstance(transform, ToTensor)]
    dataset.transforms = dataset.transforms[: ends[0]] if ends else dataset.transforms
    shown = dataset

    def picture(index: int) -> Picture:
        epoch, place = divmod(index, len(shown))
        sample = shown.replay(place, epoch)
        points = LabelledObject(sample["gt_ldmk"], sample["gt_ldmk_attr"] > 0)
        return Picture(sample["img"], (points,), f"epoch {epoch}, {place}: {sample['img_name']}")

    return Gallery("augmented", name, dataset.skeleton, EPOCHS_SHOWN * len(dataset), picture)
