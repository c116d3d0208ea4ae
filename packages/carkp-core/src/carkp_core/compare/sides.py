"""What can be compared: each form of a model as a ``Side``, which gives every layer's tensor for images.

=============== ========== =========================================================
name            kind       tensors
=============== ========== =========================================================
``float``       float      of the layers with batch norm folded and activations fused
``calibration`` integer    of the quantized network in evaluation mode
``qat``         integer    likewise
``int_infer``   integer    of the integer model, on the march's simulator
``hbm``         integer    of the compiled program, gathered from its tiles
``*.onnx``      onnx       of the QDQ file, on ONNX Runtime (``onnx_side``)
=============== ========== =========================================================

All name a tensor by the layer that makes it, as the integer model does.

Legend: ``N`` images of a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

from carkp_core.backend import Arrays, Executor, NpuBackend, Program
from carkp_core.errors import CarkpError, ConfigError
from carkp_core.ir.arithmetic import quantize
from carkp_core.ir.graph import Graph
from carkp_core.programs import current_program
from carkp_core.quant.convert import convert
from carkp_core.quant.converters import deployed
from carkp_core.quant.integer_network import ReferenceExecutor
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare
from carkp_core.quant.repair.equalize import equalize_alike
from carkp_core.session import Session
from carkp_core.train.checkpoint import read_checkpoint

Kind = Literal["float", "integer", "onnx"]
Array = npt.NDArray[Any]
Images = Sequence[Tensor]

#: The forms of a model that a config has by name.
SIDES = ("float", "calibration", "qat", "int_infer", "hbm")


@frozen
class Described:
    """A tensor: the operator that makes it (``input`` for inputs), its place in the user's model, one step's value."""

    op: str
    source: str = ""
    scale: float | None = None


@frozen(eq=False)
class Side:
    """One form of a model.

    ``tensors`` are in execution order. ``walk`` takes the network's inputs as float tensors [N, ...] and gives each
    tensor as an array [N, ...]: integers, or floats of the float side. ``graph`` has the numbers behind the integers.
    """

    name: str
    kind: Kind
    tensors: Mapping[str, Described]
    inputs: tuple[str, ...]
    walk: Callable[[Images], Arrays]
    graph: Graph | None = None
    #: Why a program was compiled first; empty when it was not.
    compiled_because: str = ""
    #: What a reader should know.
    notes: tuple[str, ...] = ()


def float_side(session: Session) -> Side:
    """The float network with its best weights, traced as for quantization, so that layers have the same names."""
    model = _converted(session.for_stage("float"))
    context = session.context
    network = prepare(deployed(model), session.deploy_inputs(), context=context, input_scales=context.input_scales)
    network.eval()
    notes = _scaled_as_calibrated(network, session)

    def walk(images: Images) -> dict[str, Array]:
        with torch.inference_mode():
            values = network.float_values(images, keep=True)
        return {name: value.numpy() for name, value in values.items()}

    return Side("float", "float", _layers_of(network), tuple(network.inputs), walk, notes=notes)


def _scaled_as_calibrated(network: QuantizedNetwork, session: Session) -> tuple[str, ...]:
    """Scale the float network's channels as equalization did before calibration: it computes the same, comparably."""
    path = session.context.checkpoint("calibration")
    if not path.is_file():
        return ()
    state = read_checkpoint(path)["model"]
    found = [value for name, value in state.items() if name.endswith("_extra_state") and isinstance(value, dict)]
    done = [entry for value in found for entry in value.get("equalizations", ())]
    if not done:
        return ()
    equalize_alike(network, done, tuple(image[:1] for image in session.deploy_inputs().values()))
    return ("the float network's channels are scaled as cross-layer equalization scaled the calibrated one's",)


def network_side(session: Session, stage: str) -> Side:
    """A calibrated or trained quantized network in evaluation mode."""
    network = deployed(_converted(session.for_stage(stage)))
    if not isinstance(network, QuantizedNetwork):
        raise ConfigError(
            f"the {stage} predictor's model is not quantized",
            where=f"{stage}_predictor",
            seen=type(network).__name__,
            remedy="put Float2Calibration or Float2QAT into its model_convert_pipeline",
        )
    network.eval()
    graph = convert(network, session.context.task)
    types = graph.types()

    def walk(images: Images) -> dict[str, Array]:
        with torch.inference_mode():
            values = network.integer_values(images, list(types))
        return {name: value.values.numpy().astype(value.dtype) for name, value in values.items()}

    return Side(stage, "integer", described(graph), tuple(network.inputs), walk, graph)


def graph_side(session: Session) -> Side:
    """The integer model, on the march's simulator or, without any backend, on the reference executor."""
    graph = session.for_stage("int_infer").integer_graph()
    execute = executor(graph, session.context.backend_or_none(), session.context.threads)
    names = [node.name for node in graph.nodes]

    def walk(images: Images) -> Arrays:
        inputs = quantized(graph, images)
        return {**inputs, **execute(inputs, names)}

    return Side("int_infer", "integer", described(graph), _input_names(graph), walk, graph)


def program_side(session: Session, say: Callable[[str], None]) -> Side:
    """The compiled program on the machine simulator; compiled first, and said, when it is missing or out of date.

    Tensors that the compiler has removed are left out.
    """
    session = session.for_stage("int_infer")
    backend, graph = session.context.backend(), session.integer_graph()
    current = current_program(backend, graph, session.compile_options(), say)
    run = functools.partial(backend.run_program, current.program)
    names = held_tensors(run, graph, current.program)
    tensors = {name: kind for name, kind in described(graph).items() if name in names or name in _input_names(graph)}

    def walk(images: Images) -> Arrays:
        inputs = quantized(graph, images)
        return {**inputs, **run(inputs, names)}

    removed = [node.name for node in graph.nodes if node.name not in names and node.op.kind != "constant"]
    notes = (f"not in the program, so not compared: {', '.join(removed)}",) if removed else ()
    return Side("hbm", "integer", tensors, _input_names(graph), walk, graph, current.compiled_because, notes)


def held_tensors(run: Executor, graph: Graph, program: Program) -> list[str]:
    """The graph's tensors that a program can be tapped for, in execution order.

    A program does not list them. Asked for all at once it refuses if one is missing, so the list is halved until
    only missing ones are refused; a program that holds all is run once.
    """
    blank = {i.name: np.zeros((1, *i.type.shape[1:]), i.type.dtype) for i in graph.inputs}
    run(blank, ())  # a program that cannot run at all says so here

    def held(names: list[str]) -> list[str]:
        try:
            run(blank, names)
        except CarkpError:
            if len(names) < 2:
                return []
            half = len(names) // 2
            return held(names[:half]) + held(names[half:])
        return names

    inner = {node.name for node in graph.nodes if node.op.kind != "constant"} - set(program.outputs)
    found = set(held([node.name for node in graph.nodes if node.name in inner])) | set(program.outputs)
    return [node.name for node in graph.nodes if node.name in found]


def executor(graph: Graph, backend: NpuBackend | None, threads: int | None = None) -> Executor:
    """The fastest way to run an integer graph."""
    return ReferenceExecutor(graph) if backend is None else backend.simulate(graph, threads)


def quantized(graph: Graph, images: Images) -> dict[str, Array]:
    """The graph's integer inputs for float images."""
    pairs = zip(graph.inputs, images, strict=True)
    return {i.name: quantize(image.numpy(), i.type.scale, i.type.dtype) for i, image in pairs}


def described(graph: Graph) -> dict[str, Described]:
    """Every tensor of an integer graph, inputs first."""
    found = {i.name: Described("input", "", i.type.scale) for i in graph.inputs}
    return found | {n.name: Described(n.op.kind, str(n.source), n.type.scale) for n in graph.nodes}


def _input_names(graph: Graph) -> tuple[str, ...]:
    return tuple(declared.name for declared in graph.inputs)


def _layers_of(network: QuantizedNetwork) -> dict[str, Described]:
    found = {name: Described("input") for name in network.inputs}
    for step in network.steps:
        layer = network.layer(step.name)
        found[step.name] = Described(layer.kind, str(layer.source))
    return found


def _converted(session: Session) -> Any:
    """A stage's model with its checkpoint loaded."""
    predictor = session.predictor(session.context.stage)
    convert_model = predictor.model_convert_pipeline
    return (convert_model(predictor.model) if convert_model else predictor.model).eval()
