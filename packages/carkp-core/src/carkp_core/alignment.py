"""Board-consistent validation: the compiled program beside the integer model, on what the camera would deliver.

Each validation image, resized and padded to the network's input, goes through the backend's ``camera_input`` (NV12 and
back). The integer model and the compiled program answer that same input, and every element of their answers must be
equal. The integer model also answers the plain 4:4:4 image, which is what ``predict --stage int_infer`` reports.

Legend: ``N`` batch, ``K`` keypoints, ``H W`` the network's input.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from attrs import field, frozen
from torch import nn

from carkp_core.backend import Executor, NpuBackend, Program
from carkp_core.errors import BackendError, ConfigError
from carkp_core.ir.arithmetic import dequantize
from carkp_core.ir.graph import Graph, GraphInput
from carkp_core.programs import current_program, integer_graph
from carkp_core.progress import progress
from carkp_core.session import Session
from carkp_core.train.environment import Environment, plain_environment
from carkp_core.train.evaluation import evaluating
from carkp_core.train.loaders import EpochLoader, LoaderPlan, fitted
from carkp_core.train.metrics import reduced, update_metric

Arrays = Mapping[str, npt.NDArray[Any]]

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
    backend, graph = session.context.backend(), integer_graph(session)
    _camera_port(graph)
    current = current_program(backend, graph, session.compile_options(), say)
    predictor = _predictor(session)
    with plain_environment(session.context, predictor.device) as environment:
        subject = _Subject(backend, graph, backend.simulate(graph), current.program, session.context.march)
        model = (
            predictor.model_convert_pipeline(predictor.model) if predictor.model_convert_pipeline else predictor.model
        )
        run = _Run(subject, model, predictor.batch_processor, [copy.deepcopy(predictor.metrics) for _ in WAYS])
        with evaluating(model):
            for source in predictor.loaders:
                run.over(_loader(source, session, num_samples, environment))
        values = [reduced(metrics, environment.world) for metrics in run.metrics]
        named = dict(zip(WAYS, values, strict=True))
        counts = environment.world.gather((run.differing, run.elements, run.samples))
        differing, elements, samples = (sum(column) for column in zip(*counts, strict=True))
        return Alignment(differing, elements, samples, named, current.compiled_because)


@frozen(eq=False)
class _Subject:
    """An integer model and its program."""

    backend: NpuBackend
    graph: Graph
    executor: Executor
    program: Program
    march: str

    def answer(self, images_rgb: Sequence[npt.NDArray[np.uint8]]) -> tuple[Arrays, Arrays]:
        """The integers of model and program for images [H, W, 3] as the camera delivers them."""
        port = self.graph.inputs[0]
        pixels = np.stack([self.backend.camera_input(image, self.march) for image in images_rgb])
        if pixels.shape[1:] != tuple(port.type.shape[1:]):
            raise ConfigError(
                "the validation images do not have the size of the network's input",
                seen=f"{pixels.shape[2]}x{pixels.shape[3]} (height x width)",
                allowed=f"{port.type.shape[2]}x{port.type.shape[3]}",
                remedy="pad them to the network's size before ToTensor",
            )
        inputs = {port.name: pixels}
        return self.executor(inputs), self.backend.run_program(self.program, inputs)


class _Run:
    """The counts over all batches."""

    def __init__(self, subject: _Subject, model: nn.Module, processor: Any, metrics: Sequence[Sequence[Any]]) -> None:
        self._subject = subject
        self._model = model
        self._processor = processor
        self.metrics = metrics
        self.differing = self.elements = self.samples = 0
        for group in metrics:
            for metric in group:
                metric.reset()

    def over(self, loader: EpochLoader) -> None:
        """Take in a data set."""
        with progress("align", len(loader)) as advance:
            for images, raw in loader.epoch(0):
                batch, plain = self._processor.evaluate(self._model, raw)
                integers, compiled = self._subject.answer(images)
                for name, expected in integers.items():
                    self.differing += int(np.count_nonzero(expected != compiled[name]))
                    self.elements += expected.size
                self.samples += len(images)
                answers = (plain, self._decoded(integers), self._decoded(compiled))
                for metrics, answer in zip(self.metrics, answers, strict=True):
                    update_metric(metrics, batch, answer)
                advance(note=f"{self.differing} differing")

    def _decoded(self, outputs: Arrays) -> Any:
        """The model's answer made of a graph's integers."""
        types = self._subject.graph.types()
        tensors = [torch.from_numpy(dequantize(outputs[n], types[n].scale)) for n in self._subject.graph.outputs]
        answer = tensors[0] if len(tensors) == 1 else tuple(tensors)
        post_process = getattr(self._model, "post_process", None)
        with torch.inference_mode():
            return answer if post_process is None else post_process(answer)


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


def _camera_port(graph: Graph) -> GraphInput:
    """The graph's only input, once it is sure that centred pixels go into it unchanged."""
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
    return port
