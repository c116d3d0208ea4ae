"""An integer model of a network that was never trained: random calibration, to judge an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from carkp_core.ir.graph import Graph
from carkp_core.quant.convert import convert
from carkp_core.quant.prepare import prepare
from carkp_core.quant.trace import TRACE_BATCH


def fast_graph(model: nn.Module, example_inputs: Mapping[str, Tensor], context: Any = None, name: str = "") -> Graph:
    """Trace, quantize with random images and convert; operators without integer form become ``Opaque`` nodes.

    Scales mean nothing, so values that are not finite do no harm here.

    Parameters
    ----------
    model:
        The deployed network (not changed).
    example_inputs:
        One tensor (1, ...) for each input, by name.
    context:
        Plugins, march and backend.
    name:
        The model's name; by default the context's task.
    """
    scales = dict(getattr(context, "input_scales", None) or {})
    network = prepare(model, example_inputs, context=context, input_scales=scales).eval()
    generator = torch.Generator().manual_seed(0)
    network.start_observing()
    # Calls without integer form may have the traced batch built in.
    shapes = [(TRACE_BATCH, *value.shape[1:]) for value in example_inputs.values()]
    network(*(torch.rand(shape, generator=generator) * 2 - 1 for shape in shapes))
    network.finish_observing(strict=False)
    metadata = {"stage": "fast"} | ({"march": context.march} if context is not None else {})
    title = name or getattr(context, "task", "") or type(model).__name__
    return convert(network, title, example_inputs, metadata, allow_unknown=True)
