"""The float network as ONNX: its layers after batch norm folding and fusing, one or a few nodes each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from carkp_core.errors import ConfigError, QuantizationError
from carkp_core.export.onnx_builder import OnnxBuilder
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.prepare import prepare

#: Operator sets that the writer's nodes exist in unchanged.
OPSET_MIN, OPSET_MAX = 13, 21
DEFAULT_OPSET = 17


def export_float(
    network: nn.Module,
    example_inputs: Mapping[str, Tensor],
    *,
    name: str = "model",
    opset: int = DEFAULT_OPSET,
    output_names: tuple[str, ...] = (),
    context: Any = None,
) -> onnx.ModelProto:
    """Write a float network as ONNX with static shapes.

    Parameters
    ----------
    network:
        The deployed part; it is not changed.
    example_inputs:
        One tensor (1, ...) for each input, by name.
    name:
        The graph's name.
    opset:
        13 to 21.
    output_names:
        Names of the outputs in the order in which they are nested; by default the layers' own.
    context:
        Plugins, for their operators.

    Raises
    ------
    ConfigError
        An opset outside the range.
    QuantizationError
        A network that cannot be traced, or an operator without ONNX form: names all of them.
    """
    if not OPSET_MIN <= opset <= OPSET_MAX:
        raise ConfigError("this opset cannot be written", seen=str(opset), allowed=f"{OPSET_MIN} to {OPSET_MAX}")
    prepared = prepare(network, example_inputs, context=context).cpu().eval()
    _require_onnx_forms(prepared)
    images = [value.detach().cpu()[:1].float() for value in example_inputs.values()]
    with torch.no_grad():
        shapes = {key: tuple(value.shape) for key, value in prepared.float_values(images, keep=True).items()}
    builder = OnnxBuilder(opset)
    names = {key: builder.unique(key) for key in prepared.inputs}
    for step in prepared.steps:
        layer = prepared.layer(step.name)
        layer_inputs = tuple(names[key] for key in step.inputs)
        names[step.name] = layer.to_onnx(builder, layer_inputs, [shapes[key] for key in step.inputs], shapes[step.name])
    wanted = output_names or prepared.output_names
    if len(wanted) != len(prepared.output_names):
        raise ConfigError(
            "the network has another number of outputs",
            seen=f"{len(wanted)} names",
            allowed=f"{len(prepared.output_names)}: {', '.join(prepared.output_names)}",
        )
    pairs = zip(prepared.output_names, wanted, strict=True)
    outputs = {builder.rename_output(names[key], public): shapes[key] for key, public in pairs}
    return builder.model(name, {key: shapes[key] for key in prepared.inputs}, outputs)


def _require_onnx_forms(network: QuantizedNetwork) -> None:
    missing = [
        f"{getattr(layer, 'target', layer.kind)} at {layer.source or name}"
        for name, layer in ((step.name, network.layer(step.name)) for step in network.steps)
        if not layer.has_onnx_form()
    ]
    if missing:
        raise QuantizationError(
            f"{len(missing)} operator(s) have no ONNX form here",
            seen="; ".join(missing),
            remedy="move them behind the network's outputs, or offer them from a plugin (docs/write-a-plugin.md)",
        )
