"""What a model answers to each sample, written as it comes: one JSON object a line.

Shapes: ``N`` batch, ``K`` keypoints.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from carkp_core.errors import ConfigError
from carkp_core.train.callbacks.base import Callback
from carkp_core.train.distributed import World
from carkp_core.train.evaluation import Evaluated


class AnswerWriter(Callback):
    """Writes each sample's ``img_name``, ``index`` and ``keypoints``: rows of x, y, confidence.

    Keypoints are in pixels of the image as it was before the transforms. Nothing is kept in memory.

    Parameters
    ----------
    file:
        A text file.
    metrics:
        The first of them that has ``decode`` turns heatmaps into keypoints.
    """

    def __init__(self, file: IO[str], metrics: Sequence[Any]) -> None:
        self.samples = 0
        self._file = file
        self._decoder = next((metric for metric in metrics if hasattr(metric, "decode")), None)

    def on_evaluated(self, evaluated: Evaluated) -> None:
        """Write the answers of a batch."""
        output = evaluated.output
        points = self._decoder.decode(output) if self._decoder is not None else output
        if not isinstance(points, Tensor) or points.ndim != 3 or points.shape[-1] not in (2, 3):
            raise ConfigError(
                "the model's answers are no keypoints, so there are none to write",
                seen=f"{list(points.shape)}" if isinstance(points, Tensor) else type(points).__name__,
                allowed="[N, K, 3]: x, y and confidence",
                remedy="give the model a post_process",
            )
        points = points.detach().to("cpu", torch.float64)
        self._file.writelines(json.dumps(line) + "\n" for line in _answers(evaluated.batch, points, self.samples))
        self.samples += len(points)


@contextmanager
def writing_answers(path: Path, metrics: Sequence[Any], world: World) -> Iterator[AnswerWriter]:
    """Write answers to ``path``, which appears when the block has ended without an error.

    Of several processes each writes its share to a temporary file, and the main one joins them in the data set's
    order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if world.size == 1:
            with temporary.open("w", encoding="utf-8") as file:
                yield AnswerWriter(file, metrics)
            temporary.replace(path)
            return
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            yield AnswerWriter(file, metrics)
            file.seek(0)
            lines = [line for share in world.gather(file.readlines()) for line in share]
        if world.is_main:
            temporary.write_text("".join(sorted(lines, key=_index)), encoding="utf-8")
            temporary.replace(path)
    finally:
        if world.is_main:
            temporary.unlink(missing_ok=True)


def _index(line: str) -> int:
    return int(json.loads(line)["index"])


def _answers(batch: Mapping[str, Any], points: Tensor, first: int) -> Iterator[dict[str, Any]]:
    transforms = batch.get("transform_xy")
    names = batch.get("img_name")
    indices = batch.get("index")
    for n, answer in enumerate(points):
        xy = answer[:, :2]
        if transforms is not None:
            xy = mapped_back(xy, torch.as_tensor(transforms[n]).to("cpu", torch.float64))
        confidence = answer[:, 2:3] if answer.shape[-1] == 3 else torch.full((len(answer), 1), math.nan)
        rows = torch.cat([xy, confidence.to(xy.dtype)], dim=1).tolist()
        yield {
            "img_name": names[n] if names is not None else "",
            "index": int(indices[n]) if indices is not None else first + n,
            "keypoints": [[None if math.isnan(value) else round(value, 4) for value in row] for row in rows],
        }


def mapped_back(xy: Tensor, transform: Tensor) -> Tensor:
    """Undo an affine map.

    Parameters
    ----------
    xy:
        ``[K, 2]``, in pixels of the network's input.
    transform:
        ``[2, 3]``, from the image's pixels to those of the network's input.

    Returns
    -------
    ``[K, 2]``, in the image's pixels.
    """
    return torch.linalg.solve(transform[:, :2], (xy - transform[:, 2]).T).T
