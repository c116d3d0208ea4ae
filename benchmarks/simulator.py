"""The graph simulator against ONNX Runtime's int8 models of the same network and float torch.

ONNX Runtime is given its best of three forms: carkp's own export of the very integer model, and its own static
quantization of the float model with uint8 and with int8 activations. Before anything is timed, the simulator's answer
is compared with the reference executor's on one image.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from benchmarks.shipped_networks import car_images, shipped_network
from benchmarks.stopwatch import best_seconds
from carkp_bpu.simulator.graph import simulate
from carkp_core.export.onnx_float import export_float
from carkp_core.export.onnx_qdq import export_qdq
from carkp_core.ir import reference
from carkp_core.ir.arithmetic import quantize
from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import convert
from carkp_core.quant.observers import Percentile
from carkp_core.quant.prepare import prepare

CONFIG = "keypoint_efficientnetb0_carfusion"
BATCHES, THREADS, CALIBRATION_IMAGES, ROUNDS = (1, 32), (1, 2), 32, 6

Way = Callable[[], object]


def run() -> Iterator[str]:
    """A line for each batch size and number of threads."""
    shipped = shipped_network(CONFIG)
    images = car_images(max(BATCHES), shipped.size_hw)
    with torch.no_grad():
        quantized = prepare(
            shipped.network, shipped.inputs, context=shipped.context, input_scales=shipped.context.input_scales
        ).eval()
        quantized.start_observing(Percentile)
        quantized(images[:CALIBRATION_IMAGES])
        quantized.finish_observing()
    graph = convert(quantized, "b0")
    _require_equal(graph, images[:1])
    models = onnx_models(shipped.network, shipped.inputs, graph, images[:CALIBRATION_IMAGES])
    threads_before = torch.get_num_threads()
    for threads in THREADS:
        torch.set_num_threads(threads)
        for batch in BATCHES:
            yield _line(graph, models, shipped.network, images[:batch], threads)
    torch.set_num_threads(threads_before)


def _require_equal(graph: Graph, images: Tensor) -> None:
    inputs = _integers(graph, images)
    expected, got = reference.execute(graph, inputs), simulate(graph, 1)(inputs)
    assert all(np.array_equal(got[name], expected[name]) for name in graph.outputs)


def _integers(graph: Graph, images: Tensor) -> dict[str, Any]:
    (declared,) = graph.inputs
    return {declared.name: quantize(images.numpy(), declared.type.scale, declared.type.dtype)}


def _line(graph: Graph, models: Mapping[str, bytes], network: nn.Module, images: Tensor, threads: int) -> str:
    simulator, integers = simulate(graph, threads), _integers(graph, images)
    floats = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    nhwc = images.to(memory_format=torch.channels_last)

    def float_torch() -> None:
        with torch.no_grad():
            floats(nhwc)

    ways: dict[str, Way] = {"simulator": lambda: simulator(integers), "float torch": float_torch}
    ways |= {name: _session(model, images.numpy(), threads) for name, model in models.items()}
    calls = max(1, 8 // len(images))

    def repeated(way: Way) -> Way:
        return lambda: [way() for _ in range(calls)]

    seconds = best_seconds({name: repeated(way) for name, way in ways.items()}, ROUNDS)
    rate = {name: calls * len(images) / value for name, value in seconds.items()}
    best = max(models, key=lambda name: rate[name])
    others = ", ".join(f"{name} {rate[name]:.0f}" for name in models)
    return (
        f"batch {len(images)}, {threads} thread{'s' * (threads > 1)}: {rate['simulator']:.0f} images/s, "
        f"{rate['simulator'] / rate[best]:.2f} of ONNX Runtime's best int8 ({others}), "
        f"{rate['simulator'] / rate['float torch']:.2f} of float torch ({rate['float torch']:.0f})"
    )


def _session(model: bytes, images: np.ndarray, threads: int) -> Way:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})


def onnx_models(network: nn.Module, inputs: Mapping[str, Tensor], graph: Graph, images: Tensor) -> dict[str, bytes]:
    """Int8 forms of the network with a free batch size, serialized, by name."""
    found = {"carkp's QDQ export": _any_batch(export_qdq(graph)).SerializeToString()}
    floats = _any_batch(export_float(network, inputs))
    logging.disable(logging.WARNING)  # the quantizer recommends its preprocessing, which a folded export doesn't need
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(floats, str(source))
        for title, kind in (("own uint8", QuantType.QUInt8), ("own int8", QuantType.QInt8)):
            quantize_static(
                str(source), str(target), _Images(floats.graph.input[0].name, images), quant_format=QuantFormat.QDQ,
                per_channel=True, activation_type=kind, weight_type=QuantType.QInt8,
            )  # fmt: skip
            found[title] = target.read_bytes()
    logging.disable(logging.NOTSET)
    return found


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Calibration images one by one."""

    def __init__(self, name: str, images: Tensor) -> None:
        self._feeds = iter([{name: image[None].numpy()} for image in images])

    def get_next(self) -> Any:
        return next(self._feeds, None)


def _any_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model for any number of images; shapes in between are inferred again by the runtime."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    return model
