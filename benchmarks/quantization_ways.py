"""The ways to quantize that are compared: carkp's, ONNX Runtime's, torchao's, on the same float model and images.

A way is a function of the material that returns a function from images to heatmaps.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quantization_material import HELD_BACK_IMAGES, Material, Predict
from carkp_core.commands.train import train_stage
from carkp_core.export.onnx_builder import save
from carkp_core.export.onnx_float import export_float
from carkp_core.quant.convert import convert
from carkp_core.quant.converters import integer_network
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare
from carkp_core.quant.settings import observer_factory, quant_settings
from carkp_core.train.checkpoint import load_state, read_checkpoint, started_from

BATCH = 32

Way = Callable[[Material], Any]


def carkp_ways(given: Material) -> dict[str, Way]:
    """The default, each observer, the default with each repair pass added in turn."""
    catalog = given.session.context.catalog
    params = given.session.config["calibration_trainer"]["model_convert_pipeline"]["qconfig_params"]
    observer = (params["activation_calibration_observer"], params.get("activation_calibration_qkwargs") or {})
    default_repairs = list(given.session.config["calibration_trainer"].get("repairs") or ())
    ways: dict[str, Way] = {"carkp default": partial(calibrated, observer=observer, repairs=default_repairs)}
    for name in ("min_max", "moving_average", "percentile", "mse", "kl", "mix"):
        ways[f"carkp {name}, no repair"] = partial(calibrated, observer=(name, {}), repairs=[])
    added: list[dict[str, Any]] = []
    for repair in ADDED:
        if repair["type"] in catalog:
            added = [*added, repair]
            title = f"carkp {observer[0]} + {' + '.join(_short(r) for r in added)}"
            ways[title] = partial(calibrated, observer=observer, repairs=added)
    ways["carkp QAT"] = trained
    return ways


#: Repair passes in the order in which they are added. int16 outputs cost the march nothing here.
ADDED: Sequence[dict[str, Any]] = (
    {"type": "CrossLayerEqualization"},
    {"type": "BiasCorrection"},
    {"type": "AdaRound"},
    {"type": "Int16", "outputs": True},
)


def calibrated(given: Material, observer: tuple[str, Mapping[str, Any]], repairs: Sequence[Any]) -> Predict:
    """carkp's calibration, as its ``Calibrator`` does it, run by the march's simulator."""
    return _simulated(given, calibrated_network(given, observer, repairs))


def calibrated_network(
    given: Material, observer: tuple[str, Mapping[str, Any]], repairs: Sequence[Any]
) -> QuantizedNetwork:
    """Prepare, repair, observe, choose, repair."""
    context = given.session.context
    network = prepare(given.network, given.example, context=context, input_scales=dict(context.input_scales)).eval()
    held = [(batch,) for batch in given.calibration[:HELD_BACK_IMAGES].split(BATCH)]
    passes: list[Any] = [given.session.recipe(node, "repair").build() for node in repairs]
    for repair in passes:
        repair.before_calibration(network, held)
    network.start_observing(observer_factory(*observer, context.catalog))
    for batch in given.calibration[HELD_BACK_IMAGES:].split(BATCH):
        network(batch)
    network.finish_observing(batches=held)
    for repair in passes:
        repair.after_calibration(network, held)
    return network


def trained(given: Material) -> Predict:
    """The config's QAT from its own calibration; a finished one that started from the present calibration is kept."""
    context = given.session.context
    train_stage(given.session.for_stage("calibration"))
    qat, calibration = context.checkpoint("qat"), context.checkpoint("calibration")
    if not (qat.exists() and started_from(qat, calibration)):
        train_stage(given.session.for_stage("qat"))
    pipeline = given.session.config["qat_trainer"]["model_convert_pipeline"]
    settings = quant_settings(pipeline["qat_mode"], pipeline["qconfig_params"])
    scales = dict(context.input_scales)
    network = prepare(given.network, given.example, context=context, settings=settings, input_scales=scales)
    state = read_checkpoint(qat)["model"]
    load_state(network, {name.removeprefix("network."): value for name, value in state.items()}, where=str(qat))
    return _simulated(given, network)


def _simulated(given: Material, network: QuantizedNetwork) -> Predict:
    return integer_network(convert(network.eval(), "benchmark"), given.session.context)


def onnxruntime_ways() -> dict[str, Way]:
    """ONNX Runtime's static quantization with weights per channel: calibrations times activation types."""
    calibrations: dict[str, dict[str, Any]] = {
        "min-max": {"method": "MinMax"},
        "percentile 99.975": {"method": "Percentile", "CalibPercentile": 99.975},
        "percentile 99.999": {"method": "Percentile", "CalibPercentile": 99.999},
        "entropy": {"method": "Entropy"},
    }
    return {
        f"ONNX Runtime {name}, {'int8' if signed else 'uint8'}": partial(_onnxruntime, signed=signed, **options)
        for name, options in calibrations.items()
        for signed in (False, True)
    }


def _onnxruntime(given: Material, method: str, signed: bool, **options: Any) -> Predict:
    import onnxruntime
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.WARNING)
    activations = QuantType.QInt8 if signed else QuantType.QUInt8
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{name}.onnx") for name in ("float", "prepared", "quantized")]
        save(export_float(given.network, given.example, context=given.session.context), Path(paths[0]))
        quant_pre_process(paths[0], paths[1])
        quantize_static(
            paths[1],
            paths[2],
            _Reader(given.calibration),
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, method),
            extra_options=options,
        )
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(paths[2], settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(images: Tensor) -> Tensor:
        # The exported graph may be made for a batch of one.
        fixed = isinstance(session.get_inputs()[0].shape[0], int)
        pieces = images.split(1) if fixed else [images]
        return torch.cat([torch.from_numpy(session.run(None, {name: piece.numpy()})[0]) for piece in pieces])

    return predict


class _Reader:
    """Calibration images one by one, as ONNX Runtime asks for them."""

    def __init__(self, images: Tensor) -> None:
        self._images: Iterator[Tensor] = iter(images.split(1))

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {"img": image.numpy()}


def torchao_ways() -> dict[str, Way]:
    """torchao's PT2E flow with its quantizer for CPUs, which leaves transposed convolutions in float."""
    return {"torchao PT2E x86 (deconvolutions in float)": _torchao}


def _torchao(given: Material) -> Predict:
    if importlib.util.find_spec("torchao") is None:
        raise ModuleNotFoundError("torchao is not installed here; pip install torchao")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    example = (given.calibration[:2],)
    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    exported = torch.export.export(given.network, example, dynamic_shapes=(batch,)).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad():
        for images in given.calibration.split(BATCH):
            prepared(images)
    return convert_pt2e(prepared)  # type: ignore[no-any-return]


def _short(repair: Mapping[str, Any]) -> str:
    names = {"CrossLayerEqualization": "equalization", "BiasCorrection": "bias correction", "Int16": "int16 outputs"}
    return names.get(repair["type"], repair["type"])
