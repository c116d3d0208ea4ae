"""Board-consistent validation: the compiled program beside the integer model, on what the camera would deliver.

Each validation image, resized and padded to the network's input, goes through the backend's ``camera_input`` (NV12 and
back). The integer model and the compiled program answer that same input, and every element of their answers must be
equal. The integer model also answers the plain 4:4:4 image, which is what ``predict --stage int_infer`` reports.

Legend: ``N`` batch, ``K`` keypoints, ``H W`` the network's input.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from attrs import field, frozen
from torch import nn

from carkp_core.backend import Arrays, Executor, NpuBackend
from carkp_core.errors import BackendError, ConfigError
from carkp_core.ir.arithmetic import dequantize
from carkp_core.ir.graph import Graph
from carkp_core.programs import current_program
from carkp_core.progress import progress
from carkp_core.quant.converters import replaced
from carkp_core.quant.integer_network import IntegerNetwork
from carkp_core.session import Session
from carkp_core.train.environment import Environment, plain_environment
from carkp_core.train.loader_fit import fitted
from carkp_core.train.loaders import EpochLoader, LoaderPlan
from carkp_core.train.metrics import reduced, update_metric

#: What is measured, in the order of the table: plain 4:4:4 integer model, both on the camera's input.
WAYS = ("int_infer", "int_infer_nv12", "hbm")


@frozen
class Alignment:
    """What the validation found. ``elements`` is the number of integers compared."""

    differing_elements: int
    elements: int
    samples: int
    metrics: Mapping[str, Mapping[str, float]]
    #: Why the program was compiled first; empty when the one on disk was current.
    compiled_because: str = field(default="")

    @property
    def ok(self) -> bool:
        """True when program and integer model agree everywhere."""
        return self.differing_elements == 0

    def to_json(self) -> dict[str, Any]:
        """The fixed machine-readable form."""
        metrics = {way: dict(values) for way, values in self.metrics.items()}
        return {"differing_elements": self.differing_elements, "samples": self.samples, "metrics": metrics}


def align_validation(
    session: Session, num_samples: int | None = None, say: Callable[[str], None] = lambda _: None
) -> Alignment:
    """Run the validation data through integer model and compiled program.

    Parameters
    ----------
    session:
        The opened config.
    num_samples:
        Use this many samples, spread evenly over the data set, instead of all.
    say:
        Told when the program has to be compiled first.

    Raises
    ------
    RefusedError
        When the program has to be compiled and the march refuses the network.
    CheckpointError, ConfigError, BackendError
        When there is no integer model, it is for another march, or its input is not the camera's.
    """
    session = session.for_stage("int_infer")
    backend, graph = session.context.backend(), session.integer_graph()
    _check_camera_port(graph)
    current = current_program(backend, graph, session.compile_options(), say)
    predictor = _predictor(session)
    with plain_environment(session.context, predictor.device) as environment:
        convert = predictor.model_convert_pipeline
        plain = convert(predictor.model) if convert else predictor.model
        integer = _Recorder(backend.simulate(graph, session.context.threads))
        compiled = _Recorder(functools.partial(backend.run_program, current.program))
        models = (plain, _on_executor(plain, graph, integer), _on_executor(plain, graph, compiled))
        ways = [_Way(model, copy.deepcopy(predictor.metrics)) for model in models]
        run = _Run(ways, predictor.batch_processor, (integer, compiled))
        camera = functools.partial(_camera_batch, backend, graph, session.context.march)
        for source in predictor.loaders:
            run.over(_loader(source, session, num_samples, environment), camera)
        values = [reduced(way.metrics, environment.world) for way in ways]
        counts = environment.world.gather((run.differing, run.elements, run.samples))
        differing, elements, samples = (sum(column) for column in zip(*counts, strict=True))
        return Alignment(differing, elements, samples, dict(zip(WAYS, values, strict=True)), current.compiled_because)


class _Recorder:
    """An executor that keeps the integers it gave last."""

    def __init__(self, executor: Callable[[Arrays, Sequence[str]], dict[str, npt.NDArray[Any]]]) -> None:
        self._executor = executor
        self.last: Arrays = {}

    def __call__(self, inputs: Arrays, taps: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
        outputs = self._executor(inputs, taps)
        self.last = outputs
        return outputs


def _on_executor(model: nn.Module, graph: Graph, executor: Executor) -> nn.Module:
    """The same model with its integers worked out by another executor."""
    return replaced(copy.deepcopy(model), IntegerNetwork(graph, executor))


def _camera_batch(backend: NpuBackend, graph: Graph, march: str, images_rgb: Sequence[Any]) -> torch.Tensor:
    """Images [H, W, 3] as the camera delivers them, as the floats that quantize to exactly those integers."""
    port = graph.inputs[0]
    pixels = np.stack([backend.camera_input(image, march) for image in images_rgb])
    if pixels.shape[1:] != tuple(port.type.shape[1:]):
        raise ConfigError(
            "the validation images do not have the size of the network's input",
            seen=f"{pixels.shape[2]}x{pixels.shape[3]} (height x width)",
            allowed=f"{port.type.shape[2]}x{port.type.shape[3]}",
            remedy="pad them to the network's size before ToTensor",
        )
    return torch.from_numpy(dequantize(pixels, port.type.scale))


@frozen(eq=False)
class _Way:
    """A model, and what is measured of it."""

    model: nn.Module
    metrics: Sequence[Any]


class _Run:
    """The counts over all batches."""

    def __init__(self, ways: Sequence[_Way], processor: Any, compared: tuple[_Recorder, _Recorder]) -> None:
        self._ways = ways
        self._processor = processor
        self._compared = compared
        self.differing = self.elements = self.samples = 0
        for way in ways:
            way.model.eval()
            for metric in way.metrics:
                metric.reset()

    def over(self, loader: EpochLoader, camera: Callable[[Sequence[Any]], torch.Tensor]) -> None:
        """Take in a data set."""
        with progress("align", len(loader)) as advance:
            for images, raw in loader.epoch(0):
                seen = {**raw, "img": camera(images)}
                for way, batch in zip(self._ways, (raw, seen, seen), strict=True):
                    update_metric(way.metrics, *self._processor.evaluate(way.model, batch))
                self._compare()
                self.samples += len(images)
                advance(note=f"{self.differing} differing")

    def _compare(self) -> None:
        integer, compiled = (recorder.last for recorder in self._compared)
        for name, expected in integer.items():
            self.differing += int(np.count_nonzero(expected != compiled[name]))
            self.elements += expected.size


class _Paired(torch.utils.data.Dataset[tuple[Any, Any]]):
    """Each sample twice: its image before ``ToTensor``, and the whole sample."""

    def __init__(self, dataset: Any, count: int | None) -> None:
        self._whole = dataset
        self._image = copy.copy(dataset)
        self._image.transforms = type(dataset.transforms)(before_tensor(dataset.transforms))
        total = len(dataset)
        kept = total if count is None else min(count, total)
        self._indices = [index * total // kept for index in range(kept)] if kept else []

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        chosen = self._indices[index]
        return self._image[chosen]["img"], self._whole[chosen]


@frozen(eq=False)
class _Collate:
    """Images in a list, samples as the config's collate function has them."""

    samples: Callable[[list[Any]], Any]

    def __call__(self, pairs: list[tuple[Any, Any]]) -> tuple[list[Any], Any]:
        return [image for image, _ in pairs], self.samples([sample for _, sample in pairs])


def before_tensor(transforms: Sequence[Any]) -> list[Any]:
    """The transforms that come before ``ToTensor``, which leave a uint8 RGB image [H, W, 3].

    Raises
    ------
    ConfigError
        When there is no ``ToTensor``, or it keeps RGB, which no camera pipeline delivers.
    """
    names = [type(transform).__name__ for transform in transforms]
    if "ToTensor" not in names:
        raise ConfigError(
            "the validation transforms have no ToTensor, so the camera's image cannot be told apart",
            seen=", ".join(names) or "no transforms",
            allowed="Resize, RandomPadLdmkData, ToTensor(to_yuv=True), Normalize",
        )
    place = names.index("ToTensor")
    if getattr(transforms[place], "to_yuv", True) is False:
        raise ConfigError(
            "the network was made for RGB images, but the camera pipeline delivers YUV 4:4:4",
            where="val_data_loader.dataset.transforms",
            seen="ToTensor(to_yuv=False)",
            remedy="train and calibrate with ToTensor(to_yuv=True)",
        )
    return list(transforms[:place])


def _loader(source: Any, session: Session, count: int | None, environment: Environment) -> EpochLoader:
    plan = LoaderPlan.of(source, session.context)
    if not hasattr(plan.dataset, "transforms"):
        raise ConfigError(
            "the validation data set does not say what its transforms are",
            seen=type(plan.dataset).__name__,
            allowed="a data set with an attribute `transforms`, a list that it applies in order",
        )
    paired = attrs.evolve(
        plan, dataset=_Paired(plan.dataset, count), sampler=None, shuffle=False, collate_fn=_Collate(plan.collate_fn)
    )
    world = environment.world
    return EpochLoader(fitted(paired, world, environment.say_once), session.context.seed, world, training=False)


def _predictor(session: Session) -> Any:
    if session.config.get("align_bpu_predictor") is not None:
        return session.build("align_bpu_predictor")
    return session.predictor("int_infer")


def _check_camera_port(graph: Graph) -> None:
    """Refuse a graph into which centred pixels do not go unchanged."""
    port = graph.inputs[0]
    fits = len(port.type.shape) == 4 and port.type.shape[1] == 3 and port.type.dtype == "int8"
    if len(graph.inputs) > 1 or not fits or np.float32(port.type.scale) != np.float32(1 / 128):
        seen = "; ".join(f"{i.name}: {i.type.dtype} {i.type.shape}, scale {i.type.scale:g}" for i in graph.inputs)
        raise BackendError(
            "the integer model's input is not what a camera pipeline delivers",
            seen=seen,
            allowed="one int8 image (1, 3, H, W) of pixel - 128, scale 1/128",
            remedy="end the transforms with ToTensor(to_yuv=True), Normalize(mean=128.0, std=128.0)",
        )
