"""A small depthwise network that finds the bright spot, calibrated by a config; whole, or broken on purpose."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from npu_toys import Found, Peak, Spots, toy_plugins
from torch import Tensor, nn

from carkp_core.quant_report.report import QuantReport, ReportOptions, report_session
from carkp_core.session import Session, open_session

LAYERS = ["img", "stem", "depthwise", "project", "head"]


class Net(nn.Module):
    """8 x 8 images to 8 x 8 heatmaps that keep the brightness, through a depthwise layer between two ReLUs."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.project = nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 1, 1)
        with torch.no_grad():
            self.stem.weight[:, 0] = torch.linspace(0.5, 1.5, 8)[:, None, None]
            self.stem.bias.fill_(1.0)
            self.project.weight.abs_()
            self.depthwise.weight.mul_(0.1)[:, 0, 1, 1] = 1.0
            for channel in (1, 4, 6):
                self.depthwise.weight[channel] *= factor
                self.depthwise.bias[channel] *= factor
                self.project.weight[:, channel] /= factor
            self.head.weight.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.project(F.relu(self.depthwise(F.relu(self.stem(x))))))


class Model(nn.Module):
    """The network and the peak of its answer; in training a loss."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.network: nn.Module = Net(factor)
        self.post_process = Peak()

    def forward(self, data: Any) -> Any:
        heatmaps = self.network(data["img"])
        return (heatmaps, heatmaps.mean()) if self.training else self.post_process(heatmaps)


class Accompanied(Found):
    """A metric with a fuller one beside it, which ``predict`` reports first."""

    def companions(self) -> tuple[Any, ...]:
        return (Companion(),)


class Spoil:
    """A transform that divides by 0 in one pixel."""

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        sample["img"][0, 0, 0] /= 0.0
        return sample


class Missed(Found):
    """The share of samples whose point was missed, in percent."""

    name = "missed"
    lower_is_better = True

    def compute(self) -> dict[str, float]:
        return {self.name: 100 - 100 * super().compute()[self.name]}


class Companion(Found):
    """The same share under another name."""

    name = "fuller"


class Stopping(Spots):
    """Spots; while a file exists, the given sample removes it and sends this process Ctrl-C."""

    def __init__(self, transforms: list[Any], count: int, stop_file: str, at: int = 10) -> None:
        super().__init__(transforms, count)
        self._stop_file, self._at = Path(stop_file), at

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self._at and self._stop_file.exists():
            self._stop_file.unlink()
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


CONFIG = """
import torch
import npu_toys as toys
import report_toys

task_name = "toy"
march = "toy-1"
ckpt_dir = {ckpt_dir!r}
factor = 1.0
transforms = [dict(type=toys.Brighten), dict(type=toys.ToTensor), dict(type=toys.Normalize)]
model = dict(type=report_toys.Model, factor=factor)
deploy_inputs = dict(img=dict(tensor=dict(type="torch.zeros", size=(1, 3, 8, 8)), scale=1 / 128))
data_loader = dict(
    type=torch.utils.data.DataLoader,
    dataset=dict(type=report_toys.Stopping, transforms=transforms, count=24, stop_file={stop_file!r}), batch_size=8,
)
val_data_loader = data_loader
batch_processor = dict(
    type="MultiBatchProcessor", need_grad_update=True,
    loss_collector=dict(type="collect_loss_by_index", indexes=1),
)
still = dict(type="MultiBatchProcessor", need_grad_update=False)
val_callback = dict(type="Validation", data_loader=val_data_loader, batch_processor=still)
val_metrics = [dict(type=toys.Found)]
float_trainer = dict(
    type="Trainer", model=model, data_loader=data_loader, optimizer=dict(type="SGD", lr=1e-6),
    batch_processor=batch_processor, num_epochs=1, callbacks=[val_callback, dict(type="Checkpoint")],
    val_metrics=val_metrics,
)
calibration_trainer = dict(
    type="Calibrator", model=model, data_loader=data_loader, batch_processor=still, num_steps=3,
    callbacks=[val_callback, dict(type="Checkpoint")], val_metrics=val_metrics,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        qconfig_params=dict(activation_calibration_observer="min_max"),
        converters=[dict(type="LoadStage", stage="float"), dict(type="Float2Calibration")],
    ),
)
compile_cfg = dict(out_dir={out_dir!r})
"""


def write_config(folder: Path, extra: str = "") -> Path:
    """The config; its checkpoints are expected in ``models`` beside it."""
    path = folder / "toy.py"
    places = {key: str(folder / name) for key, name in
              (("ckpt_dir", "models"), ("out_dir", "out"), ("stop_file", "stop"))}  # fmt: skip
    path.write_text(CONFIG.format(**places) + extra)
    return path


def opened(folder: Path, *opts: str, **kwargs: Any) -> Session:
    """The session of a folder that ``write_config`` wrote to."""
    return open_session(str(folder / "toy.py"), opts, plugins=toy_plugins(), **kwargs)


def train(folder: Path, *stages: str, opts: tuple[str, ...] = ()) -> None:
    """Write the config and run stages."""
    write_config(folder)
    for stage in stages:
        opened(folder, *opts, stage=stage).trainer(stage).fit()


def copied(trained: Path, folder: Path) -> Path:
    """A folder of its own with the trained checkpoints."""
    folder.mkdir(exist_ok=True)
    write_config(folder)
    shutil.copytree(trained / "models", folder / "models")
    return folder


def reported(folder: Path, *opts: str, **options: Any) -> QuantReport:
    """The report of a folder."""
    return report_session(opened(folder, *opts), ReportOptions(**options))
