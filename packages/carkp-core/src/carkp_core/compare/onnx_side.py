"""A QDQ ONNX file as a side: its integer tensors, read from ONNX Runtime or, without it, onnx's reference evaluator.

carkp's exporter names the integers of a layer by the layer, and an input's by the input and ``.quantized``.

Legend: ``N`` images of a batch; the file's own shapes have N = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from carkp_core.compare.sides import Described, Images, Side, described
from carkp_core.errors import CarkpError, ConfigError
from carkp_core.ir.graph import Graph
from carkp_core.session import Session

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], Sequence[Array]]

_QUANTIZED = ".quantized"
_INTEGERS = (TensorProto.INT8, TensorProto.INT16)


def onnx_side(session: Session, path: Path) -> Side:
    """Open a QDQ file. The config's integer model explains its layers if the file was exported from it.

    Raises
    ------
    ConfigError
        When the file is no ONNX model, or holds no quantized tensor.
    """
    model = _read(path)
    inputs = tuple(value.name for value in model.graph.input)
    names = dict(_integer_tensors(model, inputs))
    if not names:
        raise ConfigError(
            "the ONNX file holds no quantized tensors",
            where=str(path),
            allowed="a file in QuantizeLinear/DequantizeLinear form",
            remedy="run `carkp export-onnx --stage int_infer`",
        )
    scales = _scales(model)
    graph, notes = _origin(session, model, path)
    known = described(graph) if graph is not None else {}
    tensors = {
        tensor: known.get(tensor, Described("input" if tensor in inputs else "quantized", "", scales.get(name)))
        for tensor, name in names.items()
    }
    run = _runner(model, list(names.values()))

    def walk(images: Images) -> dict[str, Array]:
        count = len(images[0])
        parts = [
            run({name: image[n : n + 1].numpy() for name, image in zip(inputs, images, strict=True)})
            for n in range(count)
        ]
        return {tensor: np.concatenate(column) for tensor, column in zip(names, zip(*parts, strict=True), strict=True)}

    return Side(str(path), "onnx", tensors, inputs, walk, graph, notes=notes)


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path))
        return onnx.shape_inference.infer_shapes(model, check_type=True)
    # onnx raises protobuf's, its own and operating system errors, without a base of their own.
    except Exception as error:
        raise ConfigError(
            "the ONNX file cannot be read", where=str(path), seen=str(error).splitlines()[0] if str(error) else ""
        ) from error


def _integer_tensors(model: onnx.ModelProto, inputs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Tensor of the integer model -> name in the file, in execution order."""
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    made = [output for node in model.graph.node for output in node.output]
    for name in made:
        if types.get(name) in _INTEGERS:
            source = name.removesuffix(_QUANTIZED)
            yield (source if source in inputs else name), name


def _scales(model: onnx.ModelProto) -> dict[str, float]:
    """One step's value of each integer tensor, from the nodes that quantize and dequantize it."""
    constants = {value.name: value for value in model.graph.initializer}
    found: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in constants:
            scale = numpy_helper.to_array(constants[node.input[1]])
            if scale.size == 1:
                name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
                found.setdefault(name, float(scale.reshape(())))
    return found


def _origin(session: Session, model: onnx.ModelProto, path: Path) -> tuple[Graph | None, tuple[str, ...]]:
    """The config's integer model if the file was exported from it, else None and a line that says so."""
    try:
        graph = session.integer_graph()
    except CarkpError:
        return None, (f"{path}: there is no integer model to explain its layers",)
    digest = next((entry.value for entry in model.metadata_props if entry.key == "digest"), "")
    if digest != graph.digest():
        return None, (f"{path} was not exported from the config's present integer model",)
    return graph, ()


def _runner(model: onnx.ModelProto, names: Sequence[str]) -> Run:
    """Runs one image and gives the named tensors: they become outputs of a copy of the model."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    infos = {value.name: value for value in model.graph.value_info}
    del tapped.graph.output[:]
    tapped.graph.output.extend(infos[name] for name in names)
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        # It has quantization from opset 19 on, which means the same there.
        tapped.opset_import[0].version = max(tapped.opset_import[0].version, 19)
        evaluator = ReferenceEvaluator(tapped)
        return lambda inputs: evaluator.run(list(names), dict(inputs))
    options = onnxruntime.SessionOptions()
    # Fused operators would compute the same tensors another way, and some would be gone.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(list(names), dict(inputs))
