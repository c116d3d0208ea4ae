"""A small NPU and a small task, real in every part: what the commands over a backend are tested with.

The NPU's program is the integer graph in its binary form, run by the reference executor. The task finds the brightest
pixel of an 8 x 8 image.

Legend: ``N`` batch, ``K`` keypoints (1), ``H W`` image, ``h w`` heatmap.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from carkp_core import hookimpl
from carkp_core.backend import (
    Backend,
    CheckReport,
    CompileOptions,
    CompileResult,
    NodeVerdict,
    PerformanceReport,
    QuantScheme,
    Violation,
)
from carkp_core.colour import rgb_to_yuv444
from carkp_core.errors import BackendError, DataError, GraphError
from carkp_core.ir import binary, reference
from carkp_core.ir import operators as ops
from carkp_core.ir.graph import Graph, GraphInput, Node, TensorType
from carkp_core.plugins import PluginManager, plugin_manager

SIZE = 8


class ToyProgram:
    """A graph with the digests of what it was compiled from."""

    def __init__(self, graph: Graph, header: dict[str, str]) -> None:
        self.graph = graph
        self.name = graph.name
        self.march = header["march"]
        self.graph_digest = header["graph"]
        self.options_digest = header["options"]
        types = graph.types()
        self.inputs = {i.name: (i.type.shape, i.type.dtype, i.type.scale) for i in graph.inputs}
        self.outputs = {name: (types[name].shape, types[name].dtype, types[name].scale) for name in graph.outputs}


class ToyBackend:
    """Runs everything but tables and what has no integer form; ``fault`` is added to every result of a program."""

    fault = 0

    def quant_scheme(self, node: Any, march: str) -> QuantScheme | None:
        return None

    def check(self, graph: Graph, march: str) -> CheckReport:
        refused = [node for node in graph if isinstance(node.op, (ops.Table, ops.Opaque))]
        violations = tuple(Violation("no_tables", n.name, "", "a table", "no tables", "leave it out") for n in refused)
        verdicts = (("rejected" if node in refused else "NPU") for node in graph)
        nodes = tuple(NodeVerdict(n.name, n.op.kind, v, "", 0) for n, v in zip(graph, verdicts, strict=True))
        return CheckReport(march, nodes, violations)

    def simulate(self, graph: Graph, threads: int | None = None) -> Any:
        return lambda inputs, taps=(): reference.execute(graph, inputs, taps)

    def compile(self, graph: Graph, options: CompileOptions) -> CompileResult:
        check, performance = self.check(graph, options.march), self.estimate(graph, options)
        if not check.ok:
            return CompileResult(check, performance, None, None)
        header = {"march": options.march, "graph": graph.digest(), "options": self.options_digest(options)}
        data = json.dumps(header).encode() + b"\n" + binary.to_bytes(graph)
        options.hbm.parent.mkdir(parents=True, exist_ok=True)
        options.hbm.write_bytes(data)
        return CompileResult(check, performance, options.hbm, hashlib.sha256(data).hexdigest(), (options.hbm,))

    def options_digest(self, options: CompileOptions) -> str:
        return f"{options.march} {options.opt}"

    def estimate(self, graph: Graph, options: CompileOptions) -> PerformanceReport:
        return PerformanceReport(options.march, 1024, 0.5, 2000.0, 3000, 1500, 512)

    def load_program(self, path: Path) -> ToyProgram:
        try:
            head, _, body = Path(path).read_bytes().partition(b"\n")
            return ToyProgram(binary.from_bytes(body), json.loads(head))
        except (OSError, ValueError, GraphError) as error:
            raise BackendError("not a toy program", where=str(path)) from error

    def run_program(self, program: Any, inputs: Any, taps: Any = ()) -> dict[str, np.ndarray]:
        outputs = reference.execute(program.graph, inputs, taps)
        return {name: value + np.int8(self.fault) for name, value in outputs.items()}

    def camera_input(self, image_rgb: np.ndarray, march: str) -> np.ndarray:
        yuv = rgb_to_yuv444(image_rgb)
        blocks = yuv.reshape(yuv.shape[0] // 2, 2, yuv.shape[1] // 2, 2, 3).mean(axis=(1, 3))
        yuv[..., 1:] = blocks.round().astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)[..., 1:]
        return (yuv.astype(np.int16) - 128).astype(np.int8).transpose(2, 0, 1)


class FaultyBackend(ToyBackend):
    """A march whose programs are off by one everywhere."""

    fault = 1


class ToyPlugin:
    """Offers the toy NPU."""

    @hookimpl
    def carkp_backends(self) -> tuple[Backend, ...]:
        return (
            Backend("toy", ("toy-1", "toy-2"), "npu_toys:ToyBackend"),
            Backend("faulty", ("toy-faulty",), "npu_toys:FaultyBackend"),
        )


def toy_plugins() -> PluginManager:
    """Core and the toy NPU."""
    manager = plugin_manager(load_installed=False)
    manager.register(ToyPlugin(), name="toy")
    return manager


def toy_graph(march: str = "toy-1", table: bool = False, scale: float = 1 / 128, seed: int = 0) -> Graph:
    """Halve the brightness; optionally through a table, which the toy NPU refuses."""
    weight = np.zeros((1, 3, 1, 1), np.int8)
    weight[0, 0] = 64 + seed
    conv = ops.Conv2d(weight, np.zeros(1), np.full(1, 1 << 30), np.full(1, 37), -128, 127)
    shape = TensorType((1, 1, SIZE, SIZE), "int8", 1 / 64)
    nodes = [Node("heatmap", conv, ("img",), shape)]
    if table:
        nodes.append(Node("table", ops.Table(np.arange(-128, 128).astype(np.int8)), ("heatmap",), shape))
    image = GraphInput("img", TensorType((1, 3, SIZE, SIZE), "int8", scale))
    return Graph("toy", (image,), tuple(nodes), (nodes[-1].name,), {"march": march})


class Peak(nn.Module):
    """Heatmaps [N, 1, h, w] -> points [N, 1, 3]."""

    def forward(self, heatmaps: Tensor) -> Tensor:
        flat = heatmaps.flatten(2)
        best = flat.argmax(-1)
        width = heatmaps.shape[-1]
        return torch.stack([best % width, best // width, flat.amax(-1)], dim=-1).float()


class ToyModel(nn.Module):
    """A network of one convolution, and the peak of its answer."""

    def __init__(self, post_process: bool = True) -> None:
        super().__init__()
        self.network: nn.Module = nn.Conv2d(3, 1, 1)
        self.post_process = Peak() if post_process else None

    def forward(self, data: Any) -> Tensor:
        heatmaps: Tensor = self.network(data["img"])
        return heatmaps if self.post_process is None else self.post_process(heatmaps)


class Brighten:
    """Adds to every pixel: a transform that comes before the tensor."""

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "img": np.minimum(sample["img"].astype(np.int16) + 5, 255).astype(np.uint8)}


class ToTensor:
    """To YUV and float."""

    def __init__(self, to_yuv: bool = True) -> None:
        self.to_yuv = to_yuv

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        image = rgb_to_yuv444(sample["img"]) if self.to_yuv else sample["img"]
        return {**sample, "img": torch.from_numpy(image.transpose(2, 0, 1).copy()).float()}


class Normalize:
    """(x - mean) / std."""

    def __init__(self, mean: float = 128.0, std: float = 128.0) -> None:
        self.mean, self.std = mean, std

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "img": (sample["img"] - self.mean) / self.std}


class Spots(torch.utils.data.Dataset[Any]):
    """Grey images with one bright pixel, white or red, and its place."""

    def __init__(self, transforms: list[Any], count: int = 10, size: int = SIZE, spot: int = 255) -> None:
        self.transforms = transforms
        self._count, self._size = count, size
        self._colour = (255, spot, spot)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 100, (self._size, self._size, 1), dtype=np.uint8).repeat(3, axis=2)
        y, x = rng.integers(0, self._size, 2)
        image[y, x] = self._colour
        sample: dict[str, Any] = {"img": image, "point": torch.tensor([[float(x), float(y)]]), "index": index}
        for transform in self.transforms:
            sample = transform(sample)
        return sample


class Found:
    """The share of samples whose point was found."""

    name = "found"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._hits = self._samples = 0

    def update(self, batch: Any, output: Tensor) -> None:
        self._hits += int((output[..., :2] == batch["point"]).all(-1).sum())
        self._samples += len(output)

    def compute(self) -> dict[str, float]:
        return {self.name: self._hits / self._samples if self._samples else float("nan")}

    def state(self) -> dict[str, Tensor]:
        return {"counts": torch.tensor([self._hits, self._samples])}

    def load_state(self, state: Any) -> None:
        self._hits, self._samples = (int(value) for value in state["counts"])


class ToyInference:
    """Reads numpy files and marks the found pixel."""

    suffixes = (".npy",)

    def __init__(self, transforms: list[Any]) -> None:
        self.transforms = transforms

    def read(self, path: Path) -> np.ndarray:
        try:
            image: np.ndarray = np.load(path)
        except (OSError, ValueError) as error:
            raise DataError("the image cannot be read", where=str(path), seen=str(error)) from error
        return image

    def preprocess(self, image: np.ndarray) -> dict[str, Any]:
        sample: dict[str, Any] = {"img": image}
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def postprocess(self, output: Tensor, sample: Any) -> dict[str, Any]:
        return {"x": float(output[0, 0]), "y": float(output[0, 1])}

    def draw(self, image: np.ndarray, answer: Any) -> np.ndarray:
        picture = image.copy()
        picture[int(answer["y"]), int(answer["x"])] = (255, 0, 0)
        return picture

    def write(self, path: Path, picture: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            np.save(file, picture)


CONFIG = """
import torch
import npu_toys as toys

task_name = "toy"
march = "toy-1"
ckpt_dir = {ckpt_dir!r}
transforms = [dict(type=toys.Brighten), dict(type=toys.ToTensor), dict(type=toys.Normalize)]
model = dict(type=toys.ToyModel)
deploy_inputs = dict(img=dict(tensor=dict(type="torch.zeros", size=(1, 3, 8, 8)), scale=1 / 128))
int_infer_predictor = dict(
    type="Predictor",
    model=model,
    model_convert_pipeline=dict(type="ModelConvertPipeline", converters=[dict(type="LoadIntegerModel")]),
    data_loader=dict(
        type=torch.utils.data.DataLoader,
        dataset=dict(type=toys.Spots, transforms=transforms),
        batch_size=4,
    ),
    metrics=[dict(type=toys.Found)],
)
infer_cfg = dict(type=toys.ToyInference, transforms=transforms)
compile_cfg = dict(out_dir={out_dir!r})
"""


def write_config(folder: Path, graph: Graph | None = None, extra: str = "") -> Path:
    """The toy config in a folder, with an integer model beside it if one is given."""
    path = folder / "toy.py"
    ckpt_dir = folder / "models"
    path.write_text(CONFIG.format(ckpt_dir=str(ckpt_dir), out_dir=str(folder / "out")) + extra)
    if graph is not None:
        ckpt_dir.mkdir(exist_ok=True)
        binary.write(graph, ckpt_dir / "int_infer-checkpoint-best.ir")
    return path
