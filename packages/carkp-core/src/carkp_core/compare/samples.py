"""The images that two sides are compared on: the first validation samples, or files and folders.

Legend: ``N`` images of a batch; a sample's inputs are [1, ...] float tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from carkp_core import inference
from carkp_core.errors import ConfigError, DataError
from carkp_core.session import Session
from carkp_core.train.loaders import Failure, LoaderPlan, Replayed

Say = Callable[[str], None]


@frozen(eq=False)
class Sample:
    """An image's name, and the network's inputs [1, ...] in their order."""

    name: str
    inputs: tuple[Tensor, ...]


@frozen(eq=False)
class Samples:
    """``count`` images, read one by one as they are needed; unreadable files of a folder are left out."""

    count: int
    read: Callable[[], Iterator[Sample]]

    def batches(self, size: int) -> Iterator[tuple[list[str], tuple[Tensor, ...]]]:
        """Names and inputs [N, ...], at most ``size`` images at a time."""
        held: list[Sample] = []
        for sample in self.read():
            held.append(sample)
            if len(held) == size:
                yield _joined(held)
                held = []
        if held:
            yield _joined(held)


def validation_samples(session: Session, stage: str, inputs: Sequence[str], count: int) -> Samples:
    """The first samples of a stage's validation data.

    Raises
    ------
    ConfigError, DataError
        When the config names no such data, or they cannot be read.
    """
    source = session.for_stage(stage).predictor(stage).loaders[0]
    dataset = LoaderPlan.of(source, session.context).dataset
    replayed = Replayed(dataset, session.context.seed)
    count = min(count, len(dataset))
    if not count:
        raise DataError("the validation data set is empty", remedy="check the data set's path and split")

    def read() -> Iterator[Sample]:
        for index in range(count):
            sample = replayed[(0, index)]
            if isinstance(sample, Failure):
                raise sample.error
            yield Sample(str(sample.get("img_name") or f"sample {index}"), _inputs_of(sample, inputs))

    return Samples(count, read)


def file_samples(
    session: Session, paths: Sequence[Path], inputs: Sequence[str], count: int | None, say: Say
) -> Samples:
    """Image files, and folders of such, through ``infer_cfg``'s transforms. A named file must be readable.

    Raises
    ------
    DataError
        When there is no image, or (once they are read) a named file is missing or no image.
    """
    reader = inference.open_inference(session)
    files = inference.image_files(paths, reader)[:count]
    if not files:
        listed = ", ".join(map(str, paths))
        raise DataError("no image to compare on", seen=listed, allowed=f"files ending in {', '.join(reader.suffixes)}")

    def read() -> Iterator[Sample]:
        some = False
        for path, named in files:
            image, problem = inference.try_read(path, reader)
            if problem is None:
                some = True
                yield Sample(path.name, _inputs_of(reader.preprocess(image), inputs))
            elif named:
                raise problem
            else:
                say(f"{path}: skipped, {problem.message}")
        if not some:
            raise DataError("no image could be read", seen=", ".join(map(str, paths)))

    return Samples(len(files), read)


def _inputs_of(sample: Any, names: Sequence[str]) -> tuple[Tensor, ...]:
    """The network's inputs from a sample: ``img`` for a single input, else each by its name."""
    keys = ["img"] if len(names) == 1 and names[0] not in sample else list(names)
    missing = [key for key in keys if not isinstance(sample.get(key), Tensor)]
    if missing:
        raise ConfigError(
            f"the samples have no tensor {missing[0]!r} for the network",
            seen=", ".join(map(str, sample)),
            remedy="end the transforms with ToTensor and Normalize",
        )
    return tuple(sample[key][None].float() for key in keys)


def _joined(samples: Sequence[Sample]) -> tuple[list[str], tuple[Tensor, ...]]:
    columns = zip(*(sample.inputs for sample in samples), strict=True)
    return [sample.name for sample in samples], tuple(torch.cat(column) for column in columns)
