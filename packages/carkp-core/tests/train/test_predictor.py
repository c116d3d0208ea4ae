from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from train_toys import Near, Spots, make_context

from carkp_core.errors import ConfigError
from carkp_core.train.predictor import Predictor, torch_threads, with_companions


class Scaled(Spots):
    """Spots whose images were enlarged twice and shifted by three pixels: the network sees x' = 2 x + 3."""

    def replay(self, index: int, epoch: int) -> dict[str, Any]:
        sample = super().replay(index, epoch)
        return {**sample, "transform_xy": torch.tensor([[2.0, 0.0, 3.0], [0.0, 2.0, 3.0]], dtype=torch.float64)}


class Brightest(nn.Module):
    """Answers [N, 1, 3]: where the brightest pixel lies, in the network's input, and its value."""

    def forward(self, data: dict[str, Any]) -> Tensor:
        value, place = data["img"].flatten(1).max(dim=1)
        xy = torch.stack([place % 8, place // 8], dim=1).float()
        return torch.cat([xy * 2 + 3, value[:, None]], dim=1)[:, None]


class NearPoint(Near):
    """The toy metric on points."""

    def update(self, batch: dict[str, Any], output: Tensor) -> None:
        super().update(batch, (output[:, 0, :2] - 3) / 2)

    def companions(self) -> tuple[Any, ...]:
        return (Report(),)


class Report(NearPoint):
    name = "report"

    def compute(self) -> dict[str, float]:
        return {"fixed": 0.25}

    def table(self) -> list[dict[str, Any]]:
        return [{"point": 0, "near": 1.0}]

    def draw_worst(self, dataset: Any, path: Path) -> None:
        path.write_text(type(dataset).__name__)


def predictor(folder: Path, dataset: Any = None, **changes: Any) -> Predictor:
    loader = DataLoader(dataset or Scaled(10), batch_size=4)
    given: dict[str, Any] = {"model": Brightest(), "data_loader": loader, "metrics": [NearPoint()]}
    return Predictor(**(given | changes), context=make_context(folder))


def test_a_report_with_companions_first(tmp_path: Path) -> None:
    prediction = predictor(tmp_path).predict(worst=tmp_path / "worst.txt")
    assert list(prediction.metrics) == ["fixed", "near", "dist"]
    assert prediction.metrics["near"] == 1.0
    assert prediction.to_json() == {"stage": "float", "metrics": prediction.metrics, "samples": 10}
    assert prediction.table == [{"point": 0, "near": 1.0}]
    assert (tmp_path / "worst.txt").read_text() == "Scaled"
    assert not (tmp_path / "runs").exists(), "predicting keeps no record of a run"


def test_answers_are_in_pixels_of_the_original_image(tmp_path: Path) -> None:
    predictor(tmp_path).predict(answers=tmp_path / "deep" / "answers.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "deep" / "answers.jsonl").read_text().splitlines()]
    assert [line["img_name"] for line in lines] == [f"{index}.png" for index in range(10)]
    for line in lines:
        assert line["keypoints"][0][:2] == Spots()[line["index"]]["gt_xy"].tolist()
        assert line["keypoints"][0][2] > 0.5


def test_torch_uses_the_threads_that_were_asked_for(tmp_path: Path) -> None:
    class Counting(Brightest):
        def forward(self, data: dict[str, Any]) -> Tensor:
            met.append(torch.get_num_threads())
            return super().forward(data)

    met: list[int] = []
    before = torch.get_num_threads()
    Predictor(Counting(), DataLoader(Scaled(4), batch_size=4), context=make_context(tmp_path, threads=3)).predict()
    assert met == [3]
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before


def test_several_loaders_count_as_one_data_set(tmp_path: Path) -> None:
    class Shifted(Brightest):
        def forward(self, data: dict[str, Any]) -> Tensor:
            return super().forward(data) + 3 * (data["index"] % 3)[:, None, None]

    loaders = [DataLoader(Scaled(4), batch_size=3), DataLoader(Scaled(7), batch_size=3)]
    both = predictor(tmp_path, model=Shifted(), data_loader=loaders).predict()
    parts = [predictor(tmp_path, Scaled(n), model=Shifted()).predict() for n in (4, 7)]
    assert both.samples == 11
    for name in ("near", "dist"):
        mean = (4 * parts[0].metrics[name] + 7 * parts[1].metrics[name]) / 11
        assert both.metrics[name] == pytest.approx(mean)


def test_a_companion_comes_once_and_not_beside_its_like() -> None:
    assert [metric.name for metric in with_companions([NearPoint(), NearPoint()])] == ["report", "near", "near"]
    own = Report()
    assert with_companions([own, Near()])[0] is own


class Flat(nn.Module):
    def forward(self, data: dict[str, Any]) -> Tensor:
        return data["img"].mean(dim=(1, 2, 3))


class Count(Near):
    def update(self, batch: Any, output: Any) -> None:
        self._count += len(output)


def test_what_has_no_keypoints_has_none_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no keypoints") as error:
        predictor(tmp_path, model=Flat(), metrics=[Count()]).predict(answers=tmp_path / "answers.jsonl")
    assert error.value.seen == "[4]"
    with pytest.raises(ConfigError, match="no metric can draw the worst"):
        predictor(tmp_path, model=Flat(), metrics=[Count()]).predict(worst=tmp_path / "x.png")
