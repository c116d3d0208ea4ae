"""Inference on image files: a stage's model, and a config's ``infer_cfg`` that reads, draws and writes.

What ``infer_cfg`` builds knows the task (``Inference``); this module only passes things on, batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import nn

from carkp_core import derive
from carkp_core.cli_options import write_json
from carkp_core.errors import ConfigError, DataError
from carkp_core.progress import progress
from carkp_core.session import Session
from carkp_core.train.evaluation import evaluating

#: Images run at a time.
BATCH = 16
#: The task's inference where a config leaves ``infer_cfg`` out.
DEFAULT_TYPE = "KeypointInference"


class Inference(Protocol):
    """What ``infer_cfg`` builds."""

    #: File name endings of images, lower case with the dot.
    suffixes: Sequence[str]

    def read(self, path: Path) -> Any:
        """An image. Raises DataError when the file is missing or no image."""

    def preprocess(self, image: Any) -> dict[str, Any]:
        """The sample that the network takes: ``img`` is a float tensor [C, H, W]."""

    def postprocess(self, output: Any, sample: Mapping[str, Any]) -> dict[str, Any]:
        """One sample's part of the model's answer -> plain values, in pixels of the image as it was read."""

    def draw(self, image: Any, answer: Mapping[str, Any]) -> Any:
        """The image with the answer drawn on it, at its own size."""

    def write(self, path: Path, picture: Any) -> None:
        """Write a picture."""


@frozen
class Inferred:
    """One image's answer and the files that hold it."""

    image: Path
    picture: Path
    json: Path
    answer: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"image": str(self.image), "picture": str(self.picture), "json": str(self.json), **self.answer}


@frozen
class InferenceResult:
    """All images' answers, and those of a folder's files that could not be read, with the reason."""

    stage: str
    images: tuple[Inferred, ...]
    skipped: tuple[tuple[Path, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        skipped = [{"image": str(path), "reason": reason} for path, reason in self.skipped]
        return {"stage": self.stage, "images": [image.to_json() for image in self.images], "skipped": skipped}


def infer_images(session: Session, paths: Sequence[Path], save_path: Path, stage: str = "int_infer") -> InferenceResult:
    """Run a stage's model on images and write a picture and a JSON file for each.

    Parameters
    ----------
    session:
        The opened config.
    paths:
        Image files, or folders of such. A file must be readable; what is unreadable in a folder is skipped.
    save_path:
        The folder to write to.
    stage:
        Whose checkpoint to use.

    Raises
    ------
    DataError
        When a file is missing or unreadable, or there is no image at all.
    ConfigError, CheckpointError
        When the config cannot infer, or the stage has not been trained.
    """
    session = session.for_stage(stage)
    inference = open_inference(session)
    files = image_files(paths, inference)
    images, skipped = _read_all(files, inference)
    if not images:
        listed = ", ".join(map(str, paths))
        raise DataError("no image to run", seen=listed, allowed=f"files ending in {', '.join(inference.suffixes)}")
    predictor = session.predictor(stage)
    model = predictor.model_convert_pipeline(predictor.model) if predictor.model_convert_pipeline else predictor.model
    found = []
    with evaluating(model), progress("infer", len(images)) as advance:
        names = _result_names(list(images))
        for path, image, answer in _answers(model, inference, images):
            target = save_path / names[path]
            inference.write(target.with_suffix(".png"), inference.draw(image, answer))
            record = {"image": str(path), "stage": stage, **answer}
            write_json(target.with_suffix(".json"), record)
            found.append(Inferred(path, target.with_suffix(".png"), target.with_suffix(".json"), answer))
            advance()
    return InferenceResult(stage, tuple(found), tuple(skipped))


def parse_model_input(text: str, name: str = "img") -> Path:
    """The path in ``img:PATH``; the name may be left out.

    Raises
    ------
    ConfigError
        When another input is named.
    """
    given, separator, path = text.partition(":")
    if not separator:
        return Path(text)
    if given != name:
        raise ConfigError("no such model input", where="--model-inputs", seen=text, allowed=f"{name}:PATH")
    return Path(path)


def open_inference(session: Session) -> Inference:
    """What ``infer_cfg`` builds, or the default with the validation transforms."""
    if session.config.get("infer_cfg") is not None:
        built = session.infer()
    elif DEFAULT_TYPE in session.context.catalog:
        node = {"type": DEFAULT_TYPE, "transforms": derive.validation_transforms(session.config)}
        built = session.recipe(node, "infer_cfg").build()
    else:
        built = session.infer()  # says what is missing
    missing = [name for name in ("read", "preprocess", "postprocess", "draw", "write") if not hasattr(built, name)]
    if missing:
        raise ConfigError(
            "infer_cfg builds something that cannot infer", where="infer_cfg", seen=f"no {', '.join(missing)}"
        )
    return built  # type: ignore[no-any-return]


def image_files(paths: Sequence[Path], inference: Inference) -> list[tuple[Path, bool]]:
    """Files to read, and whether each was named itself (else it stands in a named folder)."""
    files: list[tuple[Path, bool]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(f for f in path.iterdir() if f.is_file() and f.suffix.lower() in inference.suffixes)
            files += [(file, False) for file in inside]
        else:
            files.append((path, True))
    return list(dict(files).items())


def _read_all(
    files: Sequence[tuple[Path, bool]], inference: Inference
) -> tuple[dict[Path, Any], list[tuple[Path, str]]]:
    images: dict[Path, Any] = {}
    skipped = []
    for path, named in files:
        image, problem = try_read(path, inference)
        if problem is None:
            images[path] = image
        elif named:
            raise problem
        else:
            skipped.append((path, problem.message))
    return images, skipped


def try_read(path: Path, inference: Inference) -> tuple[Any, DataError | None]:
    try:
        return inference.read(path), None
    except DataError as error:
        return None, error


def _answers(
    model: nn.Module, inference: Inference, images: Mapping[Path, Any]
) -> Iterator[tuple[Path, Any, dict[str, Any]]]:
    paths = list(images)
    for first in range(0, len(paths), BATCH):
        part = paths[first : first + BATCH]
        samples = [inference.preprocess(images[path]) for path in part]
        with torch.inference_mode():
            output = model({"img": torch.stack([sample["img"] for sample in samples])})
        for index, (path, sample) in enumerate(zip(part, samples, strict=True)):
            yield path, images[path], inference.postprocess(_one(output, index), sample)


def _one(output: Any, index: int) -> Any:
    return type(output)(part[index] for part in output) if isinstance(output, (tuple, list)) else output[index]


def _result_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name for each image, without ending: its own, numbered where two would be equal."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}_keypoints", 1
        while name in taken:
            number += 1
            name = f"{path.stem}_keypoints_{number}"
        taken.add(name)
        names[path] = name
    return names
