"""A small network trained in all stages, and its integer model with one number changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from npu_toys import toy_plugins
from torch import Tensor, nn

from carkp_core.ir import binary
from carkp_core.ir.graph import Graph
from carkp_core.session import Session, open_session


class Net(nn.Module):
    """8 x 8 images to 8 x 8 heatmaps; ``narrow`` has the residual fused into it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.wide = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.narrow = nn.Conv2d(6, 6, 1)
        self.up = nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.head = nn.Conv2d(10, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = x + self.narrow(self.wide(x))
        y = self.up(F.avg_pool2d(x, 2))
        return self.head(torch.cat([x, y], 1))


class Model(nn.Module):
    """The network, and a loss that wants the brightness."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network: nn.Module = Net()

    def forward(self, data: Any) -> Any:
        heatmaps = self.network(data["img"])
        if not self.training:
            return heatmaps
        return heatmaps, F.mse_loss(heatmaps, data["img"][:, :1])


CONFIG = """
import torch
import compare_toys, npu_toys as toys

task_name = "toy"
march = "toy-1"
ckpt_dir = {ckpt_dir!r}
transforms = [dict(type=toys.Brighten), dict(type=toys.ToTensor), dict(type=toys.Normalize)]
model = dict(type=compare_toys.Model)
deploy_inputs = dict(img=dict(tensor=dict(type="torch.zeros", size=(1, 3, 8, 8)), scale=1 / 128))
data_loader = dict(
    type=torch.utils.data.DataLoader, dataset=dict(type=toys.Spots, transforms=transforms, count=10), batch_size=5
)
val_data_loader = data_loader
batch_processor = dict(
    type="MultiBatchProcessor", need_grad_update=True,
    loss_collector=dict(type="collect_loss_by_index", indexes=1),
)
still = dict(type="MultiBatchProcessor", need_grad_update=False)
callbacks = [dict(type="Checkpoint")]
optimizer = dict(type="SGD", lr=0.05)
float_trainer = dict(
    type="Trainer", model=model, data_loader=data_loader, optimizer=optimizer, batch_processor=batch_processor,
    num_epochs=4, callbacks=callbacks,
)
calibration_trainer = dict(
    type="Calibrator", model=model, data_loader=data_loader, batch_processor=still, num_steps=2, callbacks=callbacks,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        converters=[dict(type="LoadStage", stage="float"), dict(type="Float2Calibration")],
    ),
)
qat_trainer = dict(
    type="Trainer", model=model, data_loader=data_loader, optimizer=optimizer, batch_processor=batch_processor,
    num_epochs=2, callbacks=callbacks,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline", qat_mode="fuse_bn",
        converters=[dict(type="Float2QAT"), dict(type="LoadStage", stage="calibration")],
    ),
)
int_trainer = dict(
    type="IntegerTrainer", model=model, callbacks=callbacks,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        converters=[
            dict(type="Float2Calibration"), dict(type="LoadStage", stage="calibration"), dict(type="QAT2Quantize"),
        ],
    ),
)
int_infer_predictor = dict(
    type="Predictor", model=model, data_loader=val_data_loader,
    model_convert_pipeline=dict(type="ModelConvertPipeline", converters=[dict(type="LoadIntegerModel")]),
)
infer_cfg = dict(type=toys.ToyInference, transforms=transforms)
compile_cfg = dict(out_dir={out_dir!r})
"""

STAGES = ("float", "calibration", "qat", "int_infer")


def write_config(folder: Path) -> Path:
    """The config; its checkpoints are expected in ``models`` beside it."""
    path = folder / "toy.py"
    path.write_text(CONFIG.format(ckpt_dir=str(folder / "models"), out_dir=str(folder / "out")))
    return path


def opened(folder: Path, **kwargs: Any) -> Session:
    """The session of a folder that ``write_config`` wrote to."""
    return open_session(str(folder / "toy.py"), plugins=toy_plugins(), **kwargs)


def train_all(folder: Path) -> None:
    """Write the config and run every stage."""
    write_config(folder)
    for stage in STAGES:
        opened(folder, stage=stage).trainer(stage).fit()


def copied(trained: Path, folder: Path) -> Path:
    """A folder of its own with the trained checkpoints."""
    folder.mkdir(exist_ok=True)
    write_config(folder)
    shutil.copytree(trained / "models", folder / "models")
    return folder


def graph_of(folder: Path) -> Graph:
    """The folder's integer model."""
    return binary.read(folder / "models" / "int_infer-checkpoint-best.ir")


def change(graph: Graph, name: str, update: Callable[[Any], dict[str, Any]]) -> Graph:
    """The graph with some of a node's fields replaced: ``update`` takes the operator and gives the new ones."""
    nodes = tuple(
        attrs.evolve(node, op=attrs.evolve(node.op, **update(node.op))) if node.name == name else node  # type: ignore[misc]
        for node in graph.nodes
    )
    return attrs.evolve(graph, nodes=nodes)


def put(folder: Path, graph: Graph) -> None:
    """Make a graph the folder's integer model."""
    binary.write(graph, folder / "models" / "int_infer-checkpoint-best.ir")


def other_weight(op: Any) -> dict[str, Any]:
    """One weight in the middle of a kernel turned by 40 steps."""
    weight = op.weight.copy()
    place = tuple(size // 2 for size in weight.shape)
    weight[place] += 40 if weight[place] < 0 else -40
    return {"weight": weight}


def other_multiplier(op: Any) -> dict[str, Any]:
    """Channel 2's multiplier a tenth larger or smaller, still legal."""
    multiplier = op.multiplier.copy()
    factor = 10 / 11 if multiplier[2] > 1.5 * 2**30 else 11 / 10
    multiplier[2] = int(multiplier[2] * factor)
    return {"multiplier": multiplier}


def other_pad(op: Any) -> dict[str, Any]:
    """A row of padding moved from the top to the bottom."""
    top, left, bottom, right = op.padding_tlbr
    return {"padding_tlbr": (top - 1, left, bottom + 1, right)}
