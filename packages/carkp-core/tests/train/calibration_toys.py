"""Networks that spoil a calibration, each in its own way, and the config that runs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from train_toys import Spots

CONFIG = """
import torch

task_name = "toy"
ckpt_dir = "models"
march = "bayes"
fault = ""
count = 20
observer = "percentile"
repairs = []

model = dict(type="calibration_toys.Model", fault=fault)
deploy_inputs = dict(img=torch.zeros(1, 1, 8, 8))
data_loader = dict(
    type=torch.utils.data.DataLoader, dataset=dict(type="calibration_toys.Data", count=count, fault=fault),
    batch_size=4,
)
still = dict(type="MultiBatchProcessor", need_grad_update=False)
float_trainer = dict(
    type="Trainer", model=model, data_loader=data_loader, num_epochs=0, batch_processor=still,
    callbacks=[dict(type="Checkpoint")],
)
calibration_trainer = dict(
    type="Calibrator", model=model, data_loader=data_loader, batch_processor=still, num_steps=6,
    repairs=repairs,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        qconfig_params=dict(activation_calibration_observer=observer),
        converters=[dict(type="Float2Calibration")],
    ),
)
int_trainer = dict(
    type="IntegerTrainer", model=model,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        converters=[
            dict(type="Float2Calibration"), dict(type="LoadStage", stage="calibration"), dict(type="QAT2Quantize"),
        ],
    ),
)
"""


class Net(nn.Module):
    """Three convolutions; what is between the first two depends on the fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        self.stem, self.middle, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1)
        with torch.no_grad():
            if fault == "NaN weights":
                self.middle.weight[2] = torch.nan
            if fault == "zeros":
                self.middle.weight.zero_()
                self.middle.bias.zero_()  # type: ignore[union-attr]
            if fault == "infinite":
                self.stem.weight.mul_(1e30)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.fault == "NaN":
            x = x.log()
        if self.fault == "infinite":
            x = x * x
        return self.head(self.middle(x).relu())  # type: ignore[no-any-return]


class Model(nn.Module):
    """The network behind a batch."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.network: nn.Module = Net(fault)

    def forward(self, data: dict[str, Any]) -> Tensor:
        return self.network(data["img"])  # type: ignore[no-any-return]


class Data(Spots):
    """Spots; with the fault "NaN pixels" one image lacks a pixel, with "size" images are larger."""

    def __init__(self, count: int, fault: str = "") -> None:
        super().__init__(count)
        self.fault = fault

    def replay(self, index: int, epoch: int) -> dict[str, Any]:
        sample = super().replay(index, epoch)
        # Of 20 samples the first 5 are held back, so 13 is in the third batch of those that stay.
        if index == {"NaN pixels": 13, "NaN pixels held back": 4}.get(self.fault):
            sample["img"][0, 5, 5] = float("nan")
        if self.fault == "size":
            sample["img"] = sample["img"].repeat(2, axis=1).repeat(2, axis=2)
        return sample


class Silent:
    """A sampler that promises samples and brings none."""

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Any:
        return iter(())


class Idle:
    """A repair that does nothing."""

    def before_calibration(self, network: Any, batches: Any) -> None: ...

    def after_calibration(self, network: Any, batches: Any) -> None: ...
